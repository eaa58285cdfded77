// Pictures on a map: a representative per cell, then every image, by zoom. Their canvas is apart
// from the points', because a picture opened from disk makes a canvas unreadable.
"use strict";

const MOST_PICTURES = 1500; // 39 ms per frame for 2,000 of 32 pixels, measured; the rest stay points
const MOST_SHEETS = 40; // 16 MB each once decoded
const sheets = new Map();

// A sheet that is there, or null while it is loaded; those used last are kept.
function sheetImage(src, arrived) {
	const image = sheets.get(src) || new Image();
	sheets.delete(src);
	sheets.set(src, image);
	if (!image.src) image.src = src;
	if (sheets.size > MOST_SHEETS) sheets.delete(sheets.keys().next().value);
	if (!image.complete) image.addEventListener("load", arrived, { once: true });
	return image.complete && image.naturalWidth ? image : null;
}

// Choose what is drawn: [point, side on the screen, cell of a sheet, side in the sheet].
function choosePictures(data, frame) {
	const extent = 65536 * frame.scale; // of the whole map, in pixels
	if (data.count > 20000 && frame.zoom < 1.6) return [];
	const fits = data.lod.filter(([cells]) => extent / cells >= 34 * frame.ratio), [finest] = data.lod.at(-1) || [0];
	if (!finest || (extent / finest >= 64 * frame.ratio && data.visible <= 4 * MOST_PICTURES)) return oneEach(data, frame, extent);
	if (!fits.length) return [];
	const [cells, points] = fits.at(-1), side = Math.min(56 * frame.ratio, (0.94 * extent) / cells);
	return Array.from(inView(data, frame, side, points), (order) => [points[order], side, cellOf(`lod/${data.file}/${cells}`, order, 24), 48]);
}

// One image per cell of the map; cells halve as the zoom doubles, so panning changes nothing.
function oneEach(data, frame, extent) {
	const side = 40 * frame.ratio, level = Math.max(0, Math.round(Math.log2(extent / side))), cell = 65536 / 2 ** level;
	const all = inView(data, frame, side).slice(), taken = new Set();
	const found = all.filter((i) => {
		const key = Math.floor(data.xy[2 * i] / cell) * 131072 + Math.floor(data.xy[2 * i + 1] / cell);
		return !taken.has(key) && taken.add(key);
	});
	const every = all.length <= found.length * 1.25 || (frame.zoom >= 6 && all.length < 200);
	const space = Math.sqrt((frame.width * frame.height) / Math.max(all.length, 1));
	const shown = every ? Math.min(112 * frame.ratio, Math.max(side, space / 2)) : (0.94 * extent) / 2 ** level;
	return Array.from((every ? all : found).slice(0, MOST_PICTURES),
		(point) => [point, shown, cellOfImage("images", data.ids ? data.ids[point] : point, 32), 64]);
}

function drawPictures(canvas, data, frame, arrived) {
	const context = canvas.getContext("2d"), wanted = new Set();
	data.boxes = [];
	if (!data.pictures) return;
	context.imageSmoothingQuality = "medium";
	context.lineWidth = 2 * frame.ratio;
	for (const [point, side, { src, x, y }, own] of choosePictures(data, frame)) {
		if (wanted.size >= MOST_SHEETS && !wanted.has(src)) continue;
		wanted.add(src);
		const image = sheetImage(src, arrived), dim = data.selected && !data.selected[point];
		if (!image) continue;
		const left = (data.xy[2 * point] - frame.left) * frame.scale - side / 2, top = (data.xy[2 * point + 1] - frame.top) * frame.scale - side / 2;
		context.globalAlpha = dim ? 0.18 : 1;
		context.drawImage(image, x * own, y * own, own, own, left, top, side, side);
		if (data.frames && !dim) {
			context.strokeStyle = css(data.palette[data.colour[point]]);
			context.strokeRect(left, top, side, side);
		}
		data.boxes.push([point, left, top, side]);
	}
	context.globalAlpha = 1;
}

// Words of the regions, the largest first, each only where it covers no other.
function drawWords(canvas, data, frame) {
	if (!data.words) return;
	const context = canvas.getContext("2d"), taken = [], { ratio } = frame;
	const zoom = frame.zoom < 1.8 ? 0 : frame.zoom < 5 ? 1 : 2, size = Math.round((zoom ? 13 : 15) * ratio);
	Object.assign(context, { font: `600 ${size}px system-ui, sans-serif`, textAlign: "center", lineJoin: "round", lineWidth: 4 * ratio,
		strokeStyle: dark() ? "rgb(18 18 20 / 90%)" : "rgb(255 255 255 / 92%)", fillStyle: dark() ? "#fff" : "#111" });
	for (const [, x, y, , words] of data.regions.filter((row) => row[0] === zoom).sort((a, b) => b[3] - a[3])) {
		const text = clean(words.slice(0, 2).map(say).join(", "), 34), half = context.measureText(text).width / 2 + 4 * ratio;
		const there = (x - frame.left) * frame.scale, middle = Math.min(frame.width - half, Math.max(half, there)), base = (y - frame.top) * frame.scale;
		const box = [middle - half, base - size, middle + half, base + size * 0.4];
		if (base < size || base > frame.height - 4 || Math.abs(middle - there) > half) continue;
		if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
		taken.push(box);
		context.strokeText(text, middle, base);
		context.fillText(text, middle, base);
	}
}
