// Points: every image as a dot. Few are discs; many are summed pixel by pixel and shaded by number.
"use strict";

const FEW = 6000;
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function dark() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// Hues a golden angle apart; neighbours in the list of classes differ most.
function classColour(index) {
  const hue = (index * 137.508 + 210) % 360, light = (dark() ? 62 : 46) + ((index >> 3) % 3) * 6 - 6;
  const part = (n) => {
    const k = (n + hue / 30) % 12, a = 0.68 * Math.min(light, 100 - light) / 100;
    return Math.round(255 * (light / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

function css(colour) {
  return `rgb(${colour[0]} ${colour[1]} ${colour[2]})`;
}

// Entry 255 of a palette is grey: not known, or not selected.
function palette(kind) {
  const grey = dark() ? [92, 92, 96] : [190, 190, 195];
  const colours = [];
  for (let i = 0; i < 255; i++) colours.push(kind === "number" ? ramp(i / 254, VIRIDIS) : kind === "plain" ? (dark() ? [122, 178, 255] : [28, 92, 190]) : classColour(i));
  return [...colours, grey];
}

// Which points lie in a view, and where; `view` turns map steps into pixels.
function drawPoints(canvas, data, view) {
  const width = canvas.width, height = canvas.height, context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const { xy, colour, selected } = data, count = xy.length >> 1;
  const { left, top, scale } = view;
  const x0 = left, y0 = top, x1 = left + width / scale, y1 = top + height / scale;
  let visible = 0;
  if (count <= FEW) visible = count;
  else if (view.zoom > 1.3) for (let i = 0; i < count; i++) {
    const x = xy[2 * i], y = xy[2 * i + 1];
    if (x >= x0 && x < x1 && y >= y0 && y < y1) visible++;
  } else visible = count;
  data.visible = visible;
  if (visible <= FEW) return drawDiscs(context, data, view, [x0, y0, x1, y1]);
  const large = visible < 150000 * view.ratio;
  const sums = buffer(data, width * height * 4);
  for (let i = 0; i < count; i++) {
    const x = ((xy[2 * i] - left) * scale) | 0, y = ((xy[2 * i + 1] - top) * scale) | 0;
    if (x < 0 || y < 0 || x >= width - 1 || y >= height - 1 || xy[2 * i] < x0 || xy[2 * i + 1] < y0) continue;
    const c = 3 * (selected && !selected[i] ? 255 : colour[i]);
    let at = 4 * (y * width + x);
    sumAt(sums, at, data.rgb, c);
    if (!large) continue;
    sumAt(sums, at + 4, data.rgb, c);
    at += 4 * width;
    sumAt(sums, at, data.rgb, c);
    sumAt(sums, at + 4, data.rgb, c);
  }
  shade(context, data, width, height, large ? 0.62 : visible > 400000 ? 0.34 : 0.5);
  return visible;
}

function sumAt(sums, at, rgb, c) {
  if (sums[at + 3] > 1000) return;
  sums[at] += rgb[c];
  sums[at + 1] += rgb[c + 1];
  sums[at + 2] += rgb[c + 2];
  sums[at + 3]++;
}

function buffer(data, size) {
  if (!data.sums || data.sums.length !== size) data.sums = new Uint16Array(size);
  else data.sums.fill(0);
  return data.sums;
}

function shade(context, data, width, height, one) {
  const { sums } = data, pixels = data.pixels && data.pixels.width === width && data.pixels.height === height ? data.pixels : context.createImageData(width, height);
  data.pixels = pixels;
  const out = new Uint32Array(pixels.data.buffer), alpha = new Uint8Array(1002);
  for (let n = 1; n < 1002; n++) alpha[n] = Math.round(255 * (1 - (1 - one) ** n));
  for (let i = 0, at = 0; i < out.length; i++, at += 4) {
    const n = sums[at + 3];
    out[i] = n === 0 ? 0 : n === 1
      ? (alpha[1] << 24) | (sums[at + 2] << 18) | (sums[at + 1] << 10) | (sums[at] << 2)
      : (alpha[n] << 24) | (((sums[at + 2] * 4) / n) << 16) | (((sums[at + 1] * 4) / n) << 8) | ((sums[at] * 4) / n);
  }
  context.putImageData(pixels, 0, 0);
}

function drawDiscs(context, data, view, [x0, y0, x1, y1]) {
  const { xy, colour, selected } = data, radius = view.ratio * Math.min(6, 2.2 + view.zoom / 3), margin = radius / view.scale;
  const groups = new Map();
  for (let i = 0; i < xy.length >> 1; i++) {
    if (xy[2 * i] < x0 - margin || xy[2 * i] > x1 + margin || xy[2 * i + 1] < y0 - margin || xy[2 * i + 1] > y1 + margin) continue;
    const c = selected && !selected[i] ? 255 : colour[i];
    if (!groups.has(c)) groups.set(c, []);
    groups.get(c).push(i);
  }
  context.globalAlpha = 0.8;
  for (const [c, points] of [...groups].sort((a, b) => b[0] - a[0])) {
    context.fillStyle = css(data.palette[c]);
    context.beginPath();
    for (const i of points) {
      const x = (xy[2 * i] - view.left) * view.scale, y = (xy[2 * i + 1] - view.top) * view.scale;
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 6.2832);
    }
    context.fill();
  }
  context.globalAlpha = 1;
}

// Colours of six bits, so that a thousand of them fit a sum of sixteen.
function paint(data, colour, kind) {
  data.colour = colour;
  data.palette = palette(kind);
  data.rgb = Uint8Array.from(data.palette.flat(), (value) => value >> 2);
}

function paintSelection(data) {
  data.selected = null;
  if (!app.selection) return;
  data.selected = data.ids ? Uint8Array.from(data.ids, (image) => app.selection[image]) : app.selection;
}
