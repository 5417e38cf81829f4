// The text with its words in colour and its faults underlined: spans of plain text behind a transparent field.

const WORDS = new Set(["import", "from", "as", "grid", "space", "input", "def", "pattern", "attention", "where", "zeros", "assert", "over", "align", "if", "then", "else", "let", "any", "all", "in", "and", "or", "not", "true", "false", "count", "sum", "score", "weights", "factor", "mass", "by", "softmax", "units", "select", "every", "whole", "of", "per", "for", "keeping", "take", "seed", "label", "rank", "argmax", "lse"]);
const TOKEN = /#[^\n]*|"[^"\n]*"|[A-Za-z_]\w*|[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?|\s+|[^\s\w]/g;
const DECLARES = new Set(["grid", "space", "input", "def", "pattern", "attention", "units", "select"]);

function kinds(text) {
  const found = [];
  let before = "";
  for (const { 0: word, index } of text.matchAll(TOKEN)) {
    let kind = "";
    if (word[0] === "#") kind = "t-c";
    else if (/^[0-9"]/.test(word)) kind = "t-n";
    else if (WORDS.has(word)) kind = "t-k";
    else if (DECLARES.has(before)) kind = "t-d";
    if (word.trim()) before = word;
    found.push({ start: index, stop: index + word.length, kind });
  }
  return found;
}

// The server counts characters, a browser counts UTF-16 units.
function units(text, characters) {
  let at = 0;
  for (const character of text) { if (characters-- <= 0) break; at += character.length; }
  return at;
}

export function paint(ink, text, problems) {
  const marks = problems.flatMap(each => each.labels.map(label => {
    const start = units(text, label.start), stop = Math.max(start + 1, units(text, label.stop));
    return { start, stop, kind: label.primary ? "fault" : "cause" };
  }));
  const edges = new Set([0, text.length]);
  const tokens = kinds(text);
  for (const each of [...tokens, ...marks]) { edges.add(Math.min(each.start, text.length)); edges.add(Math.min(each.stop, text.length)); }
  const cuts = [...edges].sort((a, b) => a - b);
  const parts = [];
  let token = 0;
  for (let i = 0; i + 1 < cuts.length; i++) {
    const [start, stop] = [cuts[i], cuts[i + 1]];
    while (token + 1 < tokens.length && tokens[token].stop <= start) token++;
    const names = [tokens[token]?.start <= start && tokens[token]?.stop >= stop ? tokens[token].kind : "", ...marks.filter(m => m.start < stop && m.stop > start).map(m => m.kind)].filter(Boolean);
    const span = document.createElement("span");
    span.textContent = text.slice(start, stop);
    if (names.length) span.className = [...new Set(names)].join(" ");
    parts.push(span);
  }
  if (marks.some(m => m.start >= text.length)) {
    const end = document.createElement("span");
    end.className = "fault"; end.textContent = " ";
    parts.push(end);
  }
  ink.replaceChildren(...parts, "\n");
}

export function list(element, problems, choose) {
  element.hidden = problems.length === 0;
  element.replaceChildren(...problems.slice(0, 20).map(each => {
    const item = document.createElement("li"), code = document.createElement("code");
    code.textContent = each.code;
    const line = each.labels.find(label => label.primary)?.line;
    item.append(code, each.title + (line ? `, line ${line}` : ""));
    for (const text of [...each.labels.filter(label => label.text).map(label => label.text), ...each.notes, ...each.helps.map(help => "help: " + help)]) {
      const small = document.createElement("small");
      small.textContent = text;
      item.append(small);
    }
    item.tabIndex = 0;
    const go = () => choose(each.labels.find(label => label.primary) ?? each.labels[0]);
    item.addEventListener("click", go);
    item.addEventListener("keydown", event => { if (event.key === "Enter") go(); });
    return item;
  }));
}

export const place = units;
