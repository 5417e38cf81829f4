// Cells on canvases. Colours come from the inks of the server; on a dark page the light ones become dark.

const NIGHT = { "#edeff2": "#232a33", "#ffffff": "#171c23", "#9aa3ad": "#566270" };
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const isDark = () => document.documentElement.dataset.theme === "dark";
const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const mix = (a, b, share) => a.map((x, i) => Math.round(x + (b[i] - x) * share));

export function shade(ink, all) {
  const colour = ink[1];
  if (!isDark()) return channels(colour);
  if (NIGHT[colour]) return channels(NIGHT[colour]);
  const ramp = all.filter(each => each[0] === "some allowed");
  if (ink[0] === "some allowed" && ramp.length) return mix([38, 62, 80], [61, 154, 209], ramp.indexOf(ink) / ramp.length);
  return colour === "#0072b2" ? [61, 154, 209] : channels(colour);
}

export function decode(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

function cellsOf(picture) {
  const [height, width] = picture.shape, cells = decode(picture.cells);
  const made = new OffscreenCanvas(Math.max(1, width), Math.max(1, height)), pen = made.getContext("2d");
  const image = pen.createImageData(made.width, made.height);
  const colours = new Uint32Array(picture.inks.map(ink => new Uint32Array(new Uint8Array([...shade(ink, picture.inks), 255]).buffer)[0]));
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < cells.length; i++) pixels[i] = colours[cells[i]];
  pen.putImageData(image, 0, 0);
  return made;
}

function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.font = "11px " + css("--sans");
  return pen;
}

export function short(n) {
  for (const [size, unit] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"]]) if (n >= size) return (n / size).toPrecision(3) + " " + unit;
  return n >= 1e4 ? Math.round(n).toLocaleString("en") : String(Math.round(n * 100) / 100);
}

function ticks(first, stop, most) {
  let gap = 1;
  while ((stop - first) / gap > most) gap *= 2;
  const found = [];
  for (let at = Math.ceil(first / gap) * gap; at < stop; at += gap) found.push(at);
  return found;
}

// A mask in its axes; returns the box of its cells, by which clicks are read.
export function drawMask(canvas, picture, marks = {}, most = 620) {
  const [r0, r1] = picture.rows, [c0, c1] = picture.columns, step = picture.step;
  const [height, width] = picture.shape;
  const left = 12 + 7 * String(r1).length, top = 22, room = Math.max(80, canvas.parentElement.clientWidth - left - 8);
  const size = Math.min(room / width, most / height), side = size >= 2 ? Math.floor(size) : size;
  const box = { left, top, width: width * side, height: height * side, side, r0, c0, step, rows: height, columns: width };
  const pen = prepare(canvas, canvas.parentElement.clientWidth, box.height + top + 6);
  pen.drawImage(cellsOf(picture), left, top, box.width, box.height);
  if (side >= 9) {
    pen.strokeStyle = css("--panel"); pen.lineWidth = 1; pen.beginPath();
    for (let i = 1; i < width; i++) { pen.moveTo(left + i * side - .5, top); pen.lineTo(left + i * side - .5, top + box.height); }
    for (let i = 1; i < height; i++) { pen.moveTo(left, top + i * side - .5); pen.lineTo(left + box.width, top + i * side - .5); }
    pen.stroke();
  }
  const at = (x, first) => Math.floor((x - first) / step) * side;
  pen.lineWidth = 1.5;
  const inRows = marks.query != null && marks.query >= r0 && marks.query < r1;
  const inColumns = marks.key != null && marks.key >= c0 && marks.key < c1;
  pen.strokeStyle = "#d55e00";
  if (inRows) pen.strokeRect(left - .5, top + at(marks.query, r0) - .5, box.width + 1, Math.max(3, side) + 1);
  if (inColumns) pen.strokeRect(left + at(marks.key, c0) - .5, top - .5, Math.max(3, side) + 1, box.height + 1);
  pen.strokeStyle = css("--line"); pen.lineWidth = 1;
  pen.strokeRect(left - .5, top - .5, box.width + 1, box.height + 1);
  pen.fillStyle = css("--faint");
  pen.textAlign = "left";
  for (const tick of ticks(c0, c1, Math.max(2, box.width / 64))) pen.fillText(tick.toLocaleString("en"), left + (tick - c0) / step * side, top - 7);
  pen.textAlign = "right";
  for (const tick of ticks(r0, r1, Math.max(2, box.height / 34))) pen.fillText(tick.toLocaleString("en"), left - 6, top + (tick - r0) / step * side + 10);
  pen.font = "italic 12px " + css("--sans");
  pen.fillText("q\\k", left - 6, top - 7);
  return box;
}

export function legend(element, inks) {
  const named = Map.groupBy ? Map.groupBy(inks, ink => ink[0]) : inks.reduce((found, ink) => found.set(ink[0], [...(found.get(ink[0]) ?? []), ink]), new Map());
  const words = [...named.values()].map(same => same[Math.floor(same.length / 2)]).filter(ink => ink[0]);
  element.replaceChildren(...words.map(ink => {
    const item = document.createElement("span"), swatch = document.createElement("i");
    swatch.style.background = `rgb(${shade(ink, inks).join(",")})`;
    item.append(swatch, ink[0]);
    return item;
  }));
}

// One line of the mask on the grid of a segment: one, two or three extents; three make slices side by side.
export function drawGrid(canvas, grid, most = 420) {
  const cells = decode(grid.cells), shape = grid.shape, room = Math.max(80, Math.min(most, canvas.parentElement.clientWidth));
  let height, width, place;
  if (shape.length === 1) {
    width = Math.min(shape[0], shape[0] > 1024 ? 128 : shape[0] > 64 ? 64 : shape[0]); height = Math.ceil(shape[0] / width);
    place = i => [Math.floor(i / width), i % width];
  } else if (shape.length === 2) {
    [height, width] = shape; place = i => [Math.floor(i / width), i % width];
  } else {
    const [count, h, w] = shape, across = Math.max(1, Math.min(count, Math.ceil(Math.sqrt(count * h / w))));
    width = across * (w + 1) - 1; height = Math.ceil(count / across) * (h + 1) - 1;
    place = i => { const s = Math.floor(i / (h * w)), j = i % (h * w); return [Math.floor(s / across) * (h + 1) + Math.floor(j / w), (s % across) * (w + 1) + j % w]; };
  }
  const side = Math.max(1, Math.min(18, Math.floor(Math.min(room / width, 360 / height)) || 1));
  const pen = prepare(canvas, Math.max(room, width * side), height * side + 2);
  canvas.style.width = Math.max(room, width * side) + "px";
  const ground = channels(isDark() ? NIGHT["#edeff2"] : "#edeff2"), blue = isDark() ? [61, 154, 209] : [0, 114, 178];
  const gap = side > 5 ? 1 : 0;
  for (let i = 0; i < cells.length; i++) {
    const [y, x] = place(i), share = cells[i] / 255;
    const colour = share === 0 ? ground : share === 1 ? blue : mix(mix(ground, blue, .3), blue, share);
    pen.fillStyle = `rgb(${colour.join(",")})`;
    pen.fillRect(x * side, y * side, side - gap, side - gap);
  }
  if (grid.own !== null) {
    const [y, x] = place(Math.floor(grid.own / grid.step));
    pen.strokeStyle = "#d55e00"; pen.lineWidth = 2;
    pen.strokeRect(x * side, y * side, Math.max(3, side - gap), Math.max(3, side - gap));
  }
}
