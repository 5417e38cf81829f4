// What is shown, as one plain object: kept in the address, so that a link shows the same again.

const ONE = () => ({ text: "", entry: null, values: {} });
export const state = {
  a: ONE(), b: ONE(), side: "a", compare: false, name: "pattern.attn",
  q_len: null, k_len: null, heads: null, batch: null, extents: {}, layer: 0, head: 0, element: 0, head_dim: 64,
  layout: "auto", rows: null, columns: null, query: null, key: null, tab: "sight",
};
export const here = () => state[state.side];

const KEPT = Object.keys(state);

export function toAddress() {
  const kept = Object.fromEntries(KEPT.map(name => [name, state[name]]));
  const bytes = new TextEncoder().encode(JSON.stringify(kept));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return "#" + btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

export function fromAddress(hash) {
  if (hash.length < 2) return false;
  try {
    const text = atob(hash.slice(1).replace(/-/g, "+").replace(/_/g, "/"));
    const found = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, c => c.charCodeAt(0))));
    if (typeof found?.a?.text !== "string") return false;
    for (const name of KEPT) if (name in found) state[name] = found[name];
    return true;
  } catch { return false; }
}

export function question(side = state.side, more = {}) {
  const { text, entry, values } = state[side];
  const of = { text, entry, values, layer: state.layer, head: state.head, element: state.element, head_dim: state.head_dim, layout: state.layout };
  for (const name of ["q_len", "k_len", "heads", "batch", "rows", "columns"]) if (state[name] !== null) of[name] = state[name];
  if (Object.keys(state.extents).length) of.extents = state.extents;
  return { ...of, ...more };
}

// One question of a kind at a time; of those asked meanwhile only the last is sent.
const lanes = {};
export function ask(kind, data) {
  const lane = lanes[kind] ??= { busy: false, next: null };
  return new Promise(resolve => {
    if (lane.next) lane.next.resolve(null);
    lane.next = { data, resolve };
    if (!lane.busy) run(kind, lane);
  });
}

async function run(kind, lane) {
  lane.busy = true;
  const began = performance.now(), tell = seconds => dispatchEvent(new CustomEvent("waiting", { detail: { kind, seconds } }));
  const clock = setInterval(() => tell(Math.round((performance.now() - began) / 1000)), 500);
  while (lane.next) {
    const { data, resolve } = lane.next;
    lane.next = null;
    let found;
    try {
      const answer = await fetch("/api/" + kind, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data) });
      found = await answer.json();
    } catch { found = { error: "the server does not answer: was it ended?" }; }
    resolve(lane.next ? null : found);
  }
  lane.busy = false;
  clearInterval(clock);
  tell(0);
}
