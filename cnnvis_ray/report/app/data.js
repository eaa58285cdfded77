// The run's data by image number, and pictures cut from sheets.
"use strict";

var app = { run: null, pages: {}, starts: [], selection: null, focus: null, keys: [] };

function prepare(run) {
  app.run = run;
  let first = 0;
  app.starts = run.units.map(([, rows]) => (first += rows) - rows);
  const wordnet = run.classes.slice(0, 50);
  app.prefixed = run.labelled && wordnet.some((text) => /^n\d{8}[_-]./.test(text));
}

// WordNet numbers in front of a class are for machines.
function say(text) {
  return app.prefixed ? text.replace(/^n\d{8}[_-]/, "").replace(/_/g, " ") : text;
}

function layerOf(layer) {
  return app.run.layers.find((found) => found.name === layer);
}

function place(image) {
  let low = 0, high = app.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (app.starts[middle] <= image) low = middle;
    else high = middle - 1;
  }
  return { unit: low, name: String(app.run.units[low][0]).padStart(6, "0"), row: image - app.starts[low] };
}

async function imageOf(image) {
  const at = place(image);
  const [rows, keys] = await Promise.all([load("images/" + at.name), load("keys/" + at.name)]);
  const size = unpack(rows.size, Uint32Array);
  const label = rows.label[at.row];
  const top = [];
  for (let i = 0; i < rows.top[at.row].length; i += 2) top.push([rows.names[rows.top[at.row][i]], rows.top[at.row][i + 1]]);
  return { image, key: keys[at.row], label: label < 0 ? null : rows.classes[label], width: size[2 * at.row], height: size[2 * at.row + 1], top };
}

function imageAddress(image, key) {
  return address("image", key === undefined ? "" : key, image);
}

function sheetOf(folder, image, columns) {
  const at = place(image), part = Math.floor(at.row / columns ** 2), row = at.row % columns ** 2;
  return { src: `sheets/${folder}/${at.name}${part ? "-" + part : ""}.jpg`, x: row % columns, y: Math.floor(row / columns) };
}

// A square tile of a sheet; `x` and `y` count tiles.
function cut(src, x, y, columns, side, text) {
  return h("span", { class: "tile", role: "img", "aria-label": clean(text, 120), style: {
    width: side + "px", height: side + "px", backgroundImage: `url("${src}")`,
    backgroundSize: `${columns * side}px auto`, backgroundPosition: `${-x * side}px ${-y * side}px` } });
}

function tile(image, side, text) {
  const sheet = sheetOf("images", image, 32);
  return cut(sheet.src, sheet.x, sheet.y, 32, side, text || "image " + image);
}

// Where the visible part of an image lies in the image: all of it, or its central square.
function visiblePart(found) {
  if (app.run.large) return [0, 0, found.width, found.height];
  const side = Math.min(found.width, found.height), left = (found.width - side) / 2, top = (found.height - side) / 2;
  return [left, top, left + side, top + side];
}

// A whole image, its longer side so long, in a frame that boxes and heat can be put on.
function whole(found, longest) {
  const [left, top, right, bottom] = visiblePart(found);
  const scale = longest / Math.max(right - left, bottom - top);
  const width = Math.max(1, Math.round((right - left) * scale)), height = Math.max(1, Math.round((bottom - top) * scale));
  const columns = app.run.large ? 16 : 32, sheet = sheetOf(app.run.large ? "large" : "images", found.image, columns);
  const frame = h("span", { class: "whole", role: "img", "aria-label": clean(found.key, 120), style: {
    width: width + "px", height: height + "px", backgroundImage: `url("${sheet.src}")`,
    backgroundSize: `${columns * longest}px auto`, backgroundPosition: `${-sheet.x * longest}px ${-sheet.y * longest}px` } });
  frame.place = (box) => ({ left: (box[0] - left) * scale, top: (box[1] - top) * scale, width: (box[2] - box[0]) * scale, height: (box[3] - box[1]) * scale });
  return frame;
}

// The square of an image that the network sees, in pixels of the image.
function inputBox(found) {
  const [resize, crop] = app.run.crop;
  const shorter = Math.min(found.width, found.height), scale = shorter / resize, side = crop * scale;
  const left = (found.width - side) / 2, top = (found.height - side) / 2;
  return [left, top, left + side, top + side];
}

function framed(frame, box, kind) {
  const at = frame.place(box);
  const style = Object.fromEntries(Object.entries(at).map(([side, value]) => [side, value + "px"]));
  frame.append(h("span", { class: kind, style }));
  return frame;
}

async function columnOf(kind) {
  const columns = await load("columns");
  app.unpacked = app.unpacked || {};
  if (!columns[kind]) return null;
  app.unpacked[kind] = app.unpacked[kind] || unpack(columns[kind], columns.bytes === 2 ? Uint16Array : Uint8Array);
  return app.unpacked[kind];
}

const nothing = () => (app.run.classes.length > 255 ? 65535 : 255);

function gallery(images, side = 96) {
  const list = h("div", { class: "gallery" });
  for (const image of images) {
    const entry = h("a", { href: imageAddress(image), title: "image " + image }, tile(image, side));
    entry.addEventListener("focus", () => nameTile(entry, image), { once: true });
    entry.addEventListener("pointerenter", () => nameTile(entry, image), { once: true });
    list.append(entry);
  }
  return list;
}

async function nameTile(entry, image) {
  const at = place(image), keys = await load("keys/" + at.name);
  entry.title = clean(keys[at.row]);
  entry.firstElementChild.setAttribute("aria-label", entry.title);
}
