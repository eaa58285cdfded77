// Pictures on a map: a representative per cell, then every image, by zoom. Their canvas is apart
// from the points', because a picture opened from disk makes a canvas unreadable.
"use strict";

const MOST_PICTURES = 1500; // 39 ms a frame for 2,000 of 32 pixels, measured; the rest stay points
const MOST_SHEETS = 40; // 16 MB each once decoded
const sheets = new Map();

function sheetImage(src, arrived) {
  let image = sheets.get(src);
  if (image) {
    sheets.delete(src);
    sheets.set(src, image);
  } else {
    image = new Image();
    sheets.set(src, image);
    image.onerror = () => { image.failed = true; };
    image.src = src;
    if (sheets.size > MOST_SHEETS) sheets.delete(sheets.keys().next().value);
  }
  if (!image.complete) image.addEventListener("load", arrived, { once: true });
  return image.complete && image.naturalWidth ? image : null;
}

// Choose what is drawn: rows of point, side in pixels, and where its picture is.
function choosePictures(data, view) {
  const extent = 65536 * view.scale; // pixels of the whole map
  if (data.count > 20000 && view.zoom < 1.6) return [];
  const lod = data.lod.filter(([cells]) => extent / cells >= 30 * view.ratio);
  const finest = data.lod.length && data.lod[data.lod.length - 1][0];
  if (data.lod.length && !(extent / finest >= 64 * view.ratio && data.visible <= 4 * MOST_PICTURES)) {
    if (!lod.length) return [];
    const [cells, points] = lod[lod.length - 1];
    const side = Math.min(48 * view.ratio, 0.94 * extent / cells);
    return inView(data, view, points, side).map(([point, order]) => [point, side, {
      src: `sheets/lod/${data.file}/${cells}${order >= 576 ? "-" + Math.floor(order / 576) : ""}.jpg`, x: (order % 576) % 24, y: Math.floor((order % 576) / 24), side: 48 }]);
  }
  return oneEach(data, view, extent);
}

function inView(data, view, points, side) {
  const found = [], margin = side / view.scale, x1 = view.left + view.width / view.scale + margin, y1 = view.top + view.height / view.scale + margin;
  for (let order = 0; order < points.length; order++) {
    const point = points[order], x = data.xy[2 * point], y = data.xy[2 * point + 1];
    if (x > view.left - margin && x < x1 && y > view.top - margin && y < y1) found.push([point, order]);
  }
  return found;
}

// One image per cell of the map; cells halve as the zoom doubles, so panning changes nothing.
function oneEach(data, view, extent) {
  const shown = 40 * view.ratio, level = Math.max(0, Math.round(Math.log2(extent / shown)));
  const cell = 65536 / 2 ** level, taken = new Set(), found = [], all = [];
  const margin = shown / view.scale, x1 = view.left + view.width / view.scale + margin, y1 = view.top + view.height / view.scale + margin;
  for (let i = 0; i < data.count; i++) {
    const x = data.xy[2 * i], y = data.xy[2 * i + 1];
    if (x < view.left - margin || x > x1 || y < view.top - margin || y > y1) continue;
    all.push(i);
    const key = Math.floor(x / cell) * 131072 + Math.floor(y / cell);
    if (taken.has(key)) continue;
    taken.add(key);
    found.push(i);
  }
  const room = Math.sqrt((view.width * view.height) / Math.max(all.length, 1));
  const every = all.length <= found.length * 1.25 || (view.zoom >= 6 && all.length < 200);
  const side = every ? Math.min(112 * view.ratio, Math.max(shown, 0.5 * room)) : 0.94 * extent / 2 ** level;
  return (every ? all : found).slice(0, MOST_PICTURES).map((point) => {
    const sheet = sheetOf("images", data.ids ? data.ids[point] : point, 32);
    return [point, side, { ...sheet, side: 64 }];
  });
}

function drawPictures(canvas, data, view, arrived) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  data.boxes = [];
  if (!data.pictures) return;
  context.imageSmoothingQuality = "medium";
  const drawn = choosePictures(data, view);
  const wanted = new Set();
  for (const [point, side, sheet] of drawn) {
    if (wanted.size >= MOST_SHEETS && !wanted.has(sheet.src)) continue;
    wanted.add(sheet.src);
    const image = sheetImage(sheet.src, arrived);
    if (!image) continue;
    const left = (data.xy[2 * point] - view.left) * view.scale - side / 2, top = (data.xy[2 * point + 1] - view.top) * view.scale - side / 2;
    const dim = data.selected && !data.selected[point];
    context.globalAlpha = dim ? 0.18 : 1;
    context.drawImage(image, sheet.x * sheet.side, sheet.y * sheet.side, sheet.side, sheet.side, left, top, side, side);
    if (data.frames && !dim) {
      context.strokeStyle = css(data.palette[data.colour[point]]);
      context.lineWidth = 2 * view.ratio;
      context.strokeRect(left, top, side, side);
    }
    data.boxes.push([point, left, top, side]);
  }
  context.globalAlpha = 1;
}

// Words of the regions, the largest first, each only where it covers no other.
function drawWords(canvas, data, view) {
  if (!data.words) return;
  const context = canvas.getContext("2d"), taken = [];
  const zoom = view.zoom < 1.8 ? 0 : view.zoom < 5 ? 1 : 2;
  const size = Math.round((zoom ? 13 : 15) * view.ratio);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.lineJoin = "round";
  context.lineWidth = 4 * view.ratio;
  context.strokeStyle = dark() ? "rgb(18 18 20 / 90%)" : "rgb(255 255 255 / 92%)";
  context.fillStyle = dark() ? "#fff" : "#111";
  for (const [, x, y, , words] of data.regions.filter((row) => row[0] === zoom).sort((a, b) => b[3] - a[3])) {
    const text = clean(words.slice(0, 2).map(say).join(", "), 34);
    const half = context.measureText(text).width / 2 + 4 * view.ratio;
    const left = Math.min(view.width - half, Math.max(half, (x - view.left) * view.scale)), top = (y - view.top) * view.scale;
    if (top < size || top > view.height - 4 || Math.abs(left - (x - view.left) * view.scale) > half) continue;
    const box = [left - half, top - size, left + half, top + size * 0.4];
    if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
    taken.push(box);
    context.strokeText(text, left, top);
    context.fillText(text, left, top);
  }
}
