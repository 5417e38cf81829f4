// The page: reads what is typed and dragged, asks the server, draws what it answers.

import { state, here, ask, question, toAddress, fromAddress } from "/state.js";
import { drawMask, drawGrid, legend, short } from "/drawing.js";
import { paint, list, place } from "/editor.js";

const $ = id => document.getElementById(id);
const make = (tag, text = "", name = "") => { const e = document.createElement(tag); if (text !== "") e.textContent = text; if (name) e.className = name; return e; };
const full = n => Number(n).toLocaleString("en");
const LONGEST = 1 << 20;
let declared = { a: [], b: [] }, problems = [], looked = null, compared = null, box = null, wanted = 0;

// ------------------------------------------------------------------ the text

function setText(text) {
  here().text = text;
  $("text").value = text;
  paint($("ink"), text, []);
}

async function check() {
  const side = state.side, text = state[side].text;
  const found = await ask("check", { text });
  if (!found || side !== state.side || text !== state[side].text) return;
  if (found.error) return say(found.error);
  declared[side] = found.patterns ?? [];
  show(found.problems);
  const names = declared[side].map(each => each.name);
  if (!names.includes(here().entry)) here().entry = names.at(-1) ?? null;
  $("entry").replaceChildren(...names.map(name => new Option(name, name, false, name === here().entry)));
  $("entry").disabled = names.length < 2;
  if (!found.problems.length) { parameters(); refresh(); }
}

function show(found) {
  problems = found;
  paint($("ink"), $("text").value, problems);
  list($("problems"), problems, label => {
    if (!label) return;
    const text = $("text").value;
    $("text").focus();
    $("text").setSelectionRange(place(text, label.start), place(text, label.stop));
  });
  status(found.length ? `${found.length} ${found.length === 1 ? "fault" : "faults"}` : "ok", found.length > 0);
}

function status(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// ------------------------------------------------------------------ sliders

// A slider with a field beside it. `steps` are powers of two in quarters where the range is long.
function slider(name, value, low, high, change, by2 = false) {
  const row = make("div", "", "slider"), label = make("label", name), range = make("input"), field = make("input");
  const id = "s-" + name.replace(/\W/g, "-");
  const toRange = n => by2 ? Math.round(4 * Math.log2(Math.max(1, n))) : n;
  const fromRange = n => by2 ? Math.round(2 ** (n / 4)) : n;
  range.type = "range"; field.type = "number";
  range.min = toRange(low); range.max = toRange(high); range.value = toRange(value); range.id = id; range.ariaLabel = name;
  field.min = low; field.value = value; field.ariaLabel = name + ", number";
  label.htmlFor = id; label.title = name;
  range.addEventListener("input", () => { field.value = fromRange(Number(range.value)); change(Number(field.value)); });
  field.addEventListener("input", () => {
    if (field.value === "" || !Number.isFinite(Number(field.value))) return;
    if (Number(field.value) > Number(range.max) && !by2) range.max = field.value;
    range.value = toRange(Number(field.value));
    change(Number(field.value));
  });
  row.append(label, range, field);
  row.set = n => { if (document.activeElement !== field) field.value = n; if (document.activeElement !== range) range.value = toRange(n); };
  return row;
}

function field(name, element) {
  const row = make("div", "", "slider"), label = make("label", name);
  element.id = "s-" + name.replace(/\W/g, "-"); label.htmlFor = element.id; element.classList.add("wide");
  row.append(label, element);
  return row;
}

function parameters() {
  const shown = declared[state.side].find(each => each.name === here().entry);
  const rows = (shown?.parameters ?? []).map(each => {
    const given = here().values[each.name];
    const change = value => { here().values[each.name] = value; refresh(); };
    const start = given ?? (each.default !== null && /^-?[0-9_.]+$/.test(each.default) ? Number(each.default.replaceAll("_", "")) : null);
    if (each.kind === "bool") {
      const box = make("input"); box.type = "checkbox";
      box.checked = given ?? each.default === "true";
      box.addEventListener("change", () => change(box.checked));
      return field(each.name, box);
    }
    if (each.kind === "list") {
      const text = make("input"); text.value = given ? given.join(", ") : ""; text.placeholder = each.default ?? "0, 4";
      text.addEventListener("input", () => {
        const parts = text.value.split(",").map(part => part.trim()).filter(Boolean);
        if (parts.every(part => /^-?\d+$/.test(part))) { if (parts.length) change(parts.map(Number)); else { delete here().values[each.name]; refresh(); } }
      });
      return field(each.name, text);
    }
    const value = start ?? 4, top = Math.max(16, 2 ** Math.ceil(Math.log2(Math.max(1, Math.abs(value)) * 4)));
    const row = slider(each.name, value, Math.min(0, value), top, change);
    if (each.kind === "real") for (const input of row.querySelectorAll("input")) input.step = input.type === "range" ? top / 200 : "any";
    row.dataset.parameter = each.name;
    row.dataset.open = start === null ? "1" : "";
    return row;
  });
  $("parameters").replaceChildren(...rows);
  $("no-parameters").hidden = rows.length > 0;
}

// The sliders of the call are made anew only if others are needed: one that is being dragged stays.
let callKind = "";
function callSliders(call) {
  const kind = JSON.stringify([call.axes, call.rectangular, call.by_layer, call.by_head && call.heads > 1, call.by_batch && call.batch > 1, Object.keys(call.extents)]);
  const set = (name, value) => { state[name] = value; unzoom(); refresh(); };
  if (kind !== callKind) {
    callKind = kind;
    const rows = [], axes = call.axes;
    for (const axis of axes) {
      const row = slider(axis.split(".")[1] === axis.split(".")[0] ? axis.split(".")[0] : axis.split(".").at(-1), call.extents[axis], 1, 256, value => {
        state.extents = { ...Object.fromEntries(axes.map(name => [name, looked.call.extents[name]])), ...state.extents, [axis]: value };
        state.q_len = state.k_len = null; unzoom(); refresh();
      }, true);
      row.dataset.value = "extents." + axis;
      rows.push(row);
    }
    if (!Object.keys(call.extents).length) {
      const both = slider("tokens", call.k_len, 1, LONGEST, value => { state.q_len = state.k_len = value; unzoom(); refresh(); }, true);
      const queries = slider("queries", call.q_len, 1, LONGEST, value => { state.k_len = looked.call.k_len; set("q_len", Math.min(value, LONGEST)); }, true);
      both.dataset.value = "k_len"; queries.dataset.value = "q_len";
      rows.push(both, queries);
    }
    const counts = [["heads", 1, 64], ["batch", 1, 16], ["head_dim", 16, 256]];
    if (call.by_head && call.heads > 1) counts.push(["head", 0, call.heads - 1]);
    if (call.by_batch && call.batch > 1) counts.push(["element", 0, call.batch - 1]);
    if (call.by_layer) counts.push(["layer", 0, 63]);
    for (const [name, low, high] of counts) {
      const row = slider(name, state[name] ?? call[name] ?? 0, low, high, value => { state[name] = value; if (name === "heads") state.head = Math.min(state.head, value - 1); refresh(); });
      row.dataset.value = name;
      rows.push(row);
    }
    $("call").replaceChildren(...rows);
  }
  for (const row of $("call").children) {
    const [name, axis] = [row.dataset.value.split(".")[0], row.dataset.value.slice(8)];
    const value = name === "extents" ? call.extents[axis] : ["heads", "batch", "q_len", "k_len"].includes(name) ? call[name] : state[name];
    row.set(value);
    if (name === "head") row.children[1].max = call.heads - 1;
  }
  for (const row of $("parameters").children) if (row.dataset?.open && call.values[row.dataset.parameter] !== undefined) row.set(call.values[row.dataset.parameter]);
  const made = Object.entries(call.inputs);
  $("inputs").hidden = !made.length;
  $("inputs").textContent = made.map(([name, words]) => `${name} was made up here: ${words}.`).join(" ");
}

// ------------------------------------------------------------------ what is looked at

function refresh() {
  clearTimeout(wanted);
  wanted = setTimeout(keep, 400);
  look();
  details();
}

const keep = () => history.replaceState(null, "", toAddress());

async function look() {
  if (state.compare) return compare();
  const found = await ask("look", question());
  if (!found || state.compare) return;
  if (found.error) return say(found.error);
  if (found.problems) return show(found.problems);
  show([]);
  looked = found; compared = null;
  callSliders(found.call);
  redraw();
}

async function compare() {
  const found = await ask("compare", { ...question("a"), with: question("b") });
  if (!found || !state.compare) return;
  if (found.error) return say(found.error);
  if (found.problems) return show(found.problems);
  compared = found; looked = { call: found.call, picture: found.pictures[0], counts: null };
  callSliders(found.call);
  redraw();
}

function redraw() {
  if (!looked) return;
  const call = looked.call, marks = { query: state.query, key: state.key };
  const figures = [...$("masks").children];
  figures.forEach((figure, i) => { figure.hidden = i > 0 && !compared; figure.querySelector("figcaption").textContent = compared ? ["A: " + compared.names[0], "B: " + compared.names[1], "difference"][i] : ""; });
  box = drawMask($("mask"), looked.picture, marks, compared ? 420 : 620);
  let inks = looked.picture.inks;
  $("difference").hidden = !compared;
  if (compared) {
    drawMask($("mask-b"), compared.pictures[1], marks, 420);
    drawMask($("mask-d"), compared.pictures[2], marks, 420);
    inks = compared.pictures[2].inks;
    const pair = compared.pair;
    $("difference").textContent = pair
      ? `They differ: ${full(compared.only_first)} pairs are in A only, ${full(compared.only_second)} in B only. The first: query ${full(pair.query)}, key ${full(pair.key)}, in ${pair.in} only.`
      : "They are equal in this call: no pair is in one of them only.";
  }
  legend($("legend"), inks);
  const values = Object.entries(call.values).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ");
  $("title").textContent = compared ? `${compared.names[0]} and ${compared.names[1]}` : (call.attention ? "pairs of " : "") + call.name + (values ? `(${values})` : "");
  const counts = looked.counts, step = looked.picture.step;
  $("numbers").textContent = `${full(call.q_len)} × ${full(call.k_len)}` + (counts ? `, ${(100 * counts.density).toPrecision(3)}% seen` + (counts.dense_forward_flops > counts.forward_flops ? `, ${short(counts.dense_forward_flops / Math.max(1, counts.forward_flops))}× less arithmetic` : "") : "") + (step > 1 ? `; a cell is ${full(step)} × ${full(step)}` : "");
}

// ------------------------------------------------------------------ zoom, clicks, keys

const unzoom = () => { state.rows = state.columns = null; };
const span = () => {
  const call = looked.call;
  return { rows: state.rows ?? [0, call.q_len], columns: state.columns ?? [0, call.k_len] };
};

function zoom(factor, row, column) {
  if (!looked) return;
  const { rows, columns } = span(), call = looked.call;
  const cut = ([first, stop], centre, length) => {
    const size = Math.min(length, Math.max(16, Math.round((stop - first) * factor)));
    const start = Math.max(0, Math.min(length - size, Math.round(centre - (centre - first) / (stop - first) * size)));
    return [start, start + size];
  };
  const middle = ([first, stop]) => (first + stop) / 2;
  state.rows = cut(rows, row ?? state.query ?? middle(rows), call.q_len);
  state.columns = cut(columns, column ?? state.key ?? middle(columns), call.k_len);
  if (state.rows[1] - state.rows[0] === call.q_len && state.columns[1] - state.columns[0] === call.k_len) unzoom();
  refresh();
}

function pan(down, across) {
  const { rows, columns } = span(), call = looked.call;
  const move = ([first, stop], by, length) => { const start = Math.max(0, Math.min(length - (stop - first), first + Math.round(by))); return [start, start + stop - first]; };
  state.rows = move(rows, down, call.q_len); state.columns = move(columns, across, call.k_len);
  refresh();
}

function pairAt(event, canvas, within) {
  const area = canvas.getBoundingClientRect();
  const x = event.clientX - area.left - within.left, y = event.clientY - area.top - within.top;
  if (x < 0 || y < 0 || x >= within.width || y >= within.height) return null;
  const at = (pixel, first, length) => Math.min(length - 1, first + Math.floor(pixel / within.side) * within.step);
  return [at(y, within.r0, looked.call.q_len), at(x, within.c0, looked.call.k_len)];
}

function choose(query, key) {
  state.query = Math.max(0, Math.min(looked.call.q_len - 1, query));
  state.key = Math.max(0, Math.min(looked.call.k_len - 1, key));
  clearTimeout(wanted); wanted = setTimeout(keep, 400);
  redraw();
  if (state.tab !== "sight") tab("sight"); else details();
}

let dragged = null;
for (const id of ["mask", "mask-b", "mask-d"]) {
  const canvas = $(id);
  canvas.addEventListener("pointerdown", event => { dragged = { x: event.clientX, y: event.clientY, rows: span().rows, columns: span().columns, moved: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    if (!dragged || !box || !(state.rows || state.columns)) return;
    const [dx, dy] = [event.clientX - dragged.x, event.clientY - dragged.y];
    if (Math.hypot(dx, dy) < 4) return;
    dragged.moved = true;
    state.rows = dragged.rows; state.columns = dragged.columns;
    pan(-dy / box.side * box.step, -dx / box.side * box.step);
  });
  canvas.addEventListener("pointerup", event => {
    const wasMoved = dragged?.moved; dragged = null;
    if (wasMoved || !box) return;
    const pair = pairAt(event, canvas, box);
    if (pair) choose(...pair);
  });
  canvas.addEventListener("wheel", event => {
    const pair = box && pairAt(event, canvas, box);
    if (!pair) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? .7 : 1 / .7, ...pair);
  }, { passive: false });
}
$("mask").addEventListener("keydown", event => {
  if (!looked) return;
  const step = looked.picture.step * (event.shiftKey ? 8 : 1), [q, k] = [state.query ?? 0, state.key ?? 0];
  const acts = {
    ArrowUp: () => choose(q - step, k), ArrowDown: () => choose(q + step, k), ArrowLeft: () => choose(q, k - step), ArrowRight: () => choose(q, k + step),
    "+": () => zoom(.5), "=": () => zoom(.5), "-": () => zoom(2), "0": () => { unzoom(); refresh(); },
  };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});
$("in").addEventListener("click", () => zoom(.5));
$("out").addEventListener("click", () => zoom(2));
$("all").addEventListener("click", () => { unzoom(); refresh(); });

// ------------------------------------------------------------------ details

const TABS = { sight, tiles, costs, kernel };
function tab(name) {
  state.tab = name;
  for (const button of document.querySelectorAll("[data-tab]")) button.setAttribute("aria-selected", button.dataset.tab === name);
  for (const each of Object.keys(TABS)) $(each).hidden = each !== name;
  details();
}
for (const button of document.querySelectorAll("[data-tab]")) button.addEventListener("click", () => { tab(button.dataset.tab); keep(); });

let later = 0;
function details() {
  clearTimeout(later);
  later = setTimeout(() => TABS[state.tab](), state.tab === "sight" ? 0 : 250);
}

function trouble(panel, found) {
  const text = found.error ?? found.problems?.map(each => each.title).join("; ");
  if (text) panel.replaceChildren(make("p", text, "faint"));
  return Boolean(text);
}

async function sight() {
  if (state.query === null) return;
  const found = await ask("sight", question(state.side, { query: state.query, key: state.key }));
  if (!found || trouble($("sight"), found)) return;
  const parts = [];
  for (const [of, title] of [[found.keys, of => `Query ${full(of.query)} sees ${full(of.count)} ${of.count === 1 ? "key" : "keys"}${of.zeros ? ` and ${full(of.zeros)} zero keys` : ""}`], [found.queries, of => `Key ${full(of.key)} is seen by ${full(of.count)} ${of.count === 1 ? "query" : "queries"}`]]) {
    if (!of) continue;
    const line = make("div", "", "line");
    line.append(make("h3", title(of)), make("p", of.runs, "faint"));
    for (const grid of of.grids) {
      if (of.grids.length > 1) line.append(make("p", `${grid.name}: ${full(grid.count)}`));
      const holder = make("div"); holder.append(make("canvas")); holder.dataset.shape = grid.shape.join("x");
      holder.firstChild.ariaLabel = title(of);
      line.append(holder);
      if (grid.step > 1) line.append(make("p", `a cell is ${full(grid.step)} tokens`, "faint"));
      holder.grid = grid;
    }
    parts.push(line);
  }
  const lines = make("div", "", "lines");
  lines.append(...parts);
  $("sight").replaceChildren(lines);
  for (const holder of lines.querySelectorAll("[data-shape]")) drawGrid(holder.firstChild, holder.grid);
}

async function tiles() {
  const found = await ask("tiles", question());
  if (!found || trouble($("tiles"), found)) return;
  const order = make("input"); order.value = state.layout; order.ariaLabel = "Order of tokens";
  order.setAttribute("list", "layouts"); order.style.maxWidth = "220px";
  order.addEventListener("change", () => { state.layout = order.value.trim() || "auto"; keep(); tiles(); });
  const bar = make("div", "", "bar"), label = make("label", "order of tokens "), known = make("datalist");
  known.id = "layouts";
  known.append(...["auto", "natural", "residues(8)", "morton(y, x)", "boxes(y=8, x=16)"].map(name => new Option(name)));
  label.append(order); bar.append(label, known, make("span", `tiles of ${found.tile} × ${found.tile}`, "faint"));
  const all = make("div", "", "tiles"), key = make("div", "", "legend");
  for (const each of found.pictures) {
    const item = make("div", "", "tile"), holder = make("div"), canvas = make("canvas");
    canvas.ariaLabel = "Kinds of tiles, " + each.title;
    holder.append(canvas);
    item.append(make("h3", each.title), holder, make("p", `${full(each.full)} full, ${full(each.partial)} partial`, "faint"));
    all.append(item);
  }
  if (found.pictures.length === 1) all.append(make("p", "The natural order is the cheapest of those that the pattern suggests.", "faint"));
  $("tiles").replaceChildren(bar, all, key);
  found.pictures.forEach((each, i) => drawMask(all.children[i].querySelector("canvas"), each.picture, {}, 380));
  legend(key, found.pictures[0].picture.inks);
}

const seconds = s => s >= 1 ? s.toPrecision(3) + " s" : s >= 1e-3 ? (s * 1e3).toPrecision(3) + " ms" : (s * 1e6).toPrecision(3) + " µs";

async function costs() {
  const found = await ask("explain", question());
  if (!found || trouble($("costs"), found)) return;
  const of = found.record, auto = of.layouts.auto, cost = auto.cost;
  const cards = make("div", "", "cards");
  const card = (value, words) => { const e = make("div", "", "card"); e.append(make("b", value), make("span", words)); cards.append(e); };
  card(short(cost.pairs), `pairs, ${(100 * cost.density).toPrecision(3)}% of all`);
  card(short(cost.live), `live tiles of ${full(cost.tiles)}`);
  card(short(cost.forward_flops) + "FLOP", "forward, in whole tiles");
  card(short(cost.backward_flops) + "FLOP", "backward");
  const gain = cost.dense_forward_flops / Math.max(1, cost.forward_flops);
  card(short(gain) + "×", gain >= 1 ? "less arithmetic than dense" : "of dense: tiles are larger than the mask");
  card(short(cost.forward.compulsory).replace(/[\d,]$/, "$& ") + "B", "moved at the least, forward");
  const two = make("div", "", "two");
  const block = (title, element) => { const e = make("div"); e.append(make("h3", title), element); two.append(e); };
  const table = (head, rows) => {
    const t = make("table");
    for (const row of [head, ...rows]) { const tr = make("tr"); row.forEach((text, i) => tr.append(make(row === head || i === 0 ? "th" : "td", String(text), i && row !== head && /^[\d.]/.test(text) ? "n" : ""))); t.append(tr); }
    return t;
  };
  block("Facts", table(["for every length", ""], Object.entries(of.facts).map(([name, fact]) => [name.replaceAll("_", " "), fact])));
  const times = Object.entries(auto.roofline_seconds).map(([name, t]) => [name + ", at the least", seconds(t.forward), seconds(t.backward)]);
  if (of.cpu) times.push(...Object.entries(of.cpu.seconds).map(([name, t]) => [`CPU, ${name}`, seconds(t.forward), seconds(t.backward)]));
  block("Predicted times", table(["", "forward", "backward"], times));
  if (of.advice.length) { const advice = make("ul", "", "advice"); advice.append(...of.advice.map(text => make("li", text))); block("Advice", advice); }
  const all = make("details"), summary = make("summary", "All that `explain` says"), pre = make("pre", found.text, "code");
  all.append(summary, pre);
  $("costs").replaceChildren(cards, two, make("p"), all);
}

async function kernel() {
  const found = await ask("kernel", question());
  if (!found || trouble($("kernel"), found)) return;
  const save = make("button", "Save the stand-alone file"); save.type = "button";
  save.addEventListener("click", () => download(found.text, `${looked?.call.name || "pattern"}_attention.py`, "text/x-python"));
  const all = make("details"), summary = make("summary", `The whole file: ${full(found.text.split("\n").length)} lines, torch and Triton alone`);
  all.append(summary, make("pre", found.text, "code"));
  $("kernel").replaceChildren(make("p", "What the kernels ask about a pair of a partial tile:", "faint"), make("pre", found.function, "code"), make("p"), save, make("p"), all);
}

// ------------------------------------------------------------------ the bar above

function say(text) {
  $("toast").textContent = text; $("toast").hidden = false;
  clearTimeout(say.timer); say.timer = setTimeout(() => { $("toast").hidden = true; }, 4200);
}

// An answer that takes over two seconds is waited for with a clock.
addEventListener("waiting", ({ detail: { kind, seconds } }) => {
  $("busy").hidden = seconds < 2;
  $("busy").lastElementChild.textContent = `${kind}, ${seconds} s`;
});

function download(data, name, kind) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([data], { type: kind })); link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const copy = async text => { try { await navigator.clipboard.writeText(text); return true; } catch { return false; } };

for (const button of document.querySelectorAll("[data-export]")) button.addEventListener("click", async () => {
  $("exports").open = false;
  const kind = button.dataset.export, name = here().entry || "pattern";
  if (kind === "attn") return download(here().text, name + ".attn", "text/plain");
  const found = await ask("export", question());
  if (!found || found.error || found.problems) return say(found?.error ?? "mend the faults of the pattern first");
  if (kind === "png") return download(Uint8Array.from(atob(found.png), c => c.charCodeAt(0)), name + ".png", "image/png");
  if (kind === "svg") return download(found.svg, name + ".svg", "image/svg+xml");
  if (await copy(found[kind])) say("Copied as Python."); else download(found[kind], name + ".py", "text/x-python");
});

$("share").addEventListener("click", async () => { keep(); say(await copy(location.href) ? "Link copied." : "The address holds all that is shown."); });

$("compare").addEventListener("click", () => {
  state.compare = !state.compare;
  if (state.compare && !state.b.text) state.b = JSON.parse(JSON.stringify(state.a));
  if (!state.compare) state.side = "a";
  sides();
});

function sides() {
  $("compare").setAttribute("aria-pressed", state.compare);
  $("sides").hidden = !state.compare;
  for (const button of document.querySelectorAll("[data-side]")) button.setAttribute("aria-selected", button.dataset.side === state.side);
  $("text").value = here().text;
  paint($("ink"), here().text, []);
  check();
}
for (const button of document.querySelectorAll("[data-side]")) button.addEventListener("click", () => { state.side = button.dataset.side; sides(); });

$("entry").addEventListener("change", () => { here().entry = $("entry").value; here().values = {}; fresh(); parameters(); refresh(); });
function fresh() {
  if (state.compare) return;
  Object.assign(state, { q_len: null, k_len: null, heads: null, batch: null, extents: {}, layer: 0, head: 0, element: 0, rows: null, columns: null, query: null, key: null, layout: "auto" });
  callKind = "";
  $("sight").replaceChildren(make("p", "Click a pair of the mask, or move with the arrow keys.", "faint"));
}

let typing = 0;
$("text").addEventListener("input", () => {
  here().text = $("text").value;
  paint($("ink"), here().text, []);
  status("…");
  clearTimeout(typing); typing = setTimeout(check, 120);
});
$("text").addEventListener("scroll", () => { $("ink").scrollTop = $("text").scrollTop; $("ink").scrollLeft = $("text").scrollLeft; });
$("text").addEventListener("keydown", event => {
  if (event.key === "Tab" && !event.shiftKey && !event.ctrlKey && $("text").selectionStart !== $("text").selectionEnd) return;
  if (event.key === "Escape") $("mask").focus();
});

$("open").addEventListener("submit", event => { event.preventDefault(); openNamed($("library").value.trim()); });
$("library").addEventListener("change", () => { if ([...$("names").children].some(each => each.value === $("library").value)) openNamed($("library").value); });
async function openNamed(name) {
  if (!name) return;
  const found = await (await fetch("/api/library?name=" + encodeURIComponent(name))).json().catch(() => ({ error: "the server does not answer" }));
  if (found.error) return say(found.error);
  $("library").value = "";
  Object.assign(here(), { text: found.text, entry: found.entry, values: {} });
  fresh();
  setText(found.text);
  check();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a private window keeps nothing */ }
  redraw(); details();
}
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
addEventListener("keydown", event => { if (event.key === "Escape") $("exports").open = false; });
addEventListener("click", event => { if (!$("exports").contains(event.target)) $("exports").open = false; });
let sized = 0;
addEventListener("resize", () => { clearTimeout(sized); sized = setTimeout(() => { redraw(); details(); }, 80); });
addEventListener("hashchange", () => { if (fromAddress(location.hash)) begin(); });

function begin() { callKind = ""; tab(state.tab); sides(); }

let chosen = null;
try { chosen = localStorage.getItem("theme"); } catch { /* as above */ }
document.documentElement.dataset.theme = chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
const start = await (await fetch("/api/start")).json();
$("names").replaceChildren(...start.names.map(name => { const option = make("option"); option.value = name; return option; }));
if (!fromAddress(location.hash)) Object.assign(state.a, { text: start.text, entry: start.entry });
begin();
