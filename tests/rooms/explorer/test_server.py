"""The server keeps to the loopback, to its own page, and to its budgets."""

import contextlib
import threading
import warnings

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")

with warnings.catch_warnings():  # newer releases ask for another client than the one installed
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

import attndsl
from attndsl import explorer
from attndsl.explorer import Budget, Busy, Lane, Start, TookTooLong

TEXT = "pattern p = causal and q - k < 4\n"
HARD = {"text": "pattern p = (q * q + k * k) % 7 == 3\n", "q_len": 1 << 20, "k_len": 1 << 20}


@pytest.fixture(scope="module")
def client():
    with TestClient(explorer.application(Start(TEXT)), base_url="http://127.0.0.1:8421") as made:
        yield made


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in (
        "/explorer.css",
        "/explorer.js",
        "/state.js",
        "/drawing.js",
        "/editor.js",
        "/icon.svg",
    ):
        text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text


def test_questions_are_answered(client):
    assert client.get("/api/start").json()["text"] == TEXT
    found = client.post("/api/look", json={"text": TEXT, "q_len": 8, "k_len": 8}).json()
    assert found["counts"]["pairs"] == 26
    assert client.get("/api/library?name=swin").json()["entry"] == "swin"


@pytest.mark.parametrize("host", ["evil.example", "192.168.0.7:8421", "127.0.0.1.evil.example"])
def test_other_host_names_are_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 400


def test_other_pages_cannot_ask(client):
    asked = {"text": TEXT}
    assert (
        client.post("/api/look", json=asked, headers={"origin": "http://evil.example"}).status_code
        == 403
    )
    assert client.post("/api/look", content='{"text": ""}').status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/explorer.py",
        "/api/library?name=../x",
        "/api/library?name=x.attn",
        "/etc/passwd",
    ],
)
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code in (400, 404)


def test_bad_questions_get_one_sentence(client):
    json = {"headers": {"content-type": "application/json"}}
    assert client.post("/api/look", content="{", **json).status_code == 400
    assert client.post("/api/look", content="[" * 100_000, **json).status_code == 400
    assert client.post("/api/look", content=b"x" * 5_000_000, **json).status_code == 400
    assert client.post("/api/shutdown", json={"text": TEXT}).status_code == 404
    wrong = client.post("/api/look", json={"text": TEXT, "q_len": -1})
    assert (wrong.status_code, wrong.json()) == (
        400,
        {"error": "q_len is a whole number from 1 to 1,048,576"},
    )


def test_a_hard_question_is_given_up_and_the_next_one_answered():
    lane = Lane(Budget(seconds=1.0))
    with contextlib.closing(lane):
        lane.warm()
        with pytest.raises(TookTooLong, match="given up after 1 s"):
            lane.ask("look", HARD)
        lane.budget = Budget()
        assert lane.ask("check", {"text": TEXT})["problems"] == []


def test_too_many_questions_are_sent_away():
    lane = Lane()
    lane._places = threading.Semaphore(0)
    with pytest.raises(Busy):
        lane.ask("check", {"text": TEXT})


def test_a_port_that_is_taken_is_said():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(attndsl.AttnDslError, match=f"port {port}"):
            explorer.serve(Start(TEXT), port, print)
