// Points: every image as a dot. Few are discs; many are summed pixel by pixel and shaded by number.
"use strict";

const FEW = 6000; // discs of more take longer than sums
const DENSEST = 1000; // points of one pixel: sums of colours of six bits fit sixteen
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const brush = document.createElement("canvas").getContext("2d");

function dark() {
	return matchMedia("(prefers-color-scheme: dark)").matches;
}

function css(colour) {
	return `rgb(${colour.join(" ")})`;
}

function ramp(share) {
	const at = Math.min(0.9999, Math.max(0, share)) * (VIRIDIS.length - 1), low = Math.floor(at);
	return VIRIDIS[low].map((value, i) => Math.round(value + (VIRIDIS[low + 1][i] - value) * (at - low)));
}

// Hues a golden angle apart, so that neighbours in the list of classes differ most.
function classColour(index) {
	const light = (dark() ? 56 : 40) + ((index >> 3) % 3) * 6;
	brush.fillStyle = `hsl(${(index * 137.508 + 210) % 360} 62% ${light}%)`;
	return [1, 3, 5].map((at) => parseInt(brush.fillStyle.slice(at, at + 2), 16));
}

// Colour the points by a byte each: of a class, a number or nothing in particular; 255 is grey.
function paint(data, colour, kind) {
	const plain = dark() ? [122, 178, 255] : [28, 92, 190], grey = dark() ? [92, 92, 96] : [190, 190, 195];
	const of = { class: classColour, number: (i) => ramp(i / 254), plain: () => plain }[kind];
	data.colour = colour;
	data.palette = [...Array.from({ length: 255 }, (_, i) => of(i)), grey];
	data.rgb = Uint8Array.from(data.palette.flat(), (value) => value >> 2);
}

// The points of a view with a margin in pixels, of a list or all: places in the list. They are
// there until the next call, which saves 4 MB of garbage per frame at a million points.
function inView(data, { left, top, right, bottom, scale }, margin, list) {
	const { xy, count } = data, total = list ? list.length : count, m = margin / scale;
	if (!(data.found?.length >= total)) data.found = new Uint32Array(total);
	const { found } = data;
	let length = 0;
	for (let n = 0; n < total; n++) {
		const i = 2 * (list ? list[n] : n), x = xy[i], y = xy[i + 1];
		if (x >= left - m && x <= right + m && y >= top - m && y <= bottom + m) found[length++] = n;
	}
	return found.subarray(0, length);
}

function drawPoints(canvas, data, frame) {
	const context = canvas.getContext("2d"), shown = inView(data, frame, 6 * frame.ratio);
	context.clearRect(0, 0, frame.width, frame.height);
	data.visible = shown.length;
	if (shown.length <= FEW) drawDiscs(context, data, frame, shown);
	else drawSums(context, data, frame, shown);
}

function drawDiscs(context, { xy, colour, selected, palette }, { left, top, scale, ratio, zoom }, shown) {
	const radius = ratio * Math.min(6, 2.2 + zoom / 3), groups = new Map();
	for (const i of shown) {
		const c = selected && !selected[i] ? 255 : colour[i];
		if (!groups.has(c)) groups.set(c, []);
		groups.get(c).push(i);
	}
	context.globalAlpha = 0.8;
	for (const [c, points] of [...groups].sort((a, b) => b[0] - a[0])) {
		context.fillStyle = css(palette[c]);
		context.beginPath();
		for (const i of points) {
			const x = (xy[2 * i] - left) * scale, y = (xy[2 * i + 1] - top) * scale;
			context.moveTo(x + radius, y);
			context.arc(x, y, radius, 0, 6.2832);
		}
		context.fill();
	}
	context.globalAlpha = 1;
}

function drawSums(context, data, { left, top, scale, width, height, ratio }, shown) {
	const { xy, colour, selected, rgb } = data, wide = shown.length < 150000 * ratio;
	const size = 4 * width * height, sums = data.sums?.length === size ? data.sums.fill(0) : new Uint16Array(size);
	const put = (at, c) => {
		if (sums[at + 3] >= DENSEST) return;
		sums[at] += rgb[c];
		sums[at + 1] += rgb[c + 1];
		sums[at + 2] += rgb[c + 2];
		sums[at + 3]++;
	};
	for (let n = 0; n < shown.length; n++) {
		const i = shown[n], x = ((xy[2 * i] - left) * scale) | 0, y = ((xy[2 * i + 1] - top) * scale) | 0;
		if (x < 0 || y < 0 || x >= width - 1 || y >= height - 1) continue;
		const c = 3 * (selected && !selected[i] ? 255 : colour[i]), at = 4 * (y * width + x);
		put(at, c);
		if (!wide) continue;
		put(at + 4, c);
		put(at + 4 * width, c);
		put(at + 4 * width + 4, c);
	}
	data.sums = sums;
	shade(context, data, width, height, wide ? 0.62 : shown.length > 400000 ? 0.34 : 0.5);
}

// The mean colour of each pixel, the more opaque the more points it has; `one` is the opacity of one.
function shade(context, data, width, height, one) {
	if (data.pixels?.width !== width || data.pixels.height !== height) data.pixels = context.createImageData(width, height);
	const out = new Uint32Array(data.pixels.data.buffer), { sums } = data;
	const alpha = new Uint8Array(DENSEST + 1), share = new Float32Array(DENSEST + 1);
	for (let n = 1; n <= DENSEST; n++) {
		alpha[n] = Math.round(255 * (1 - (1 - one) ** n));
		share[n] = 4 / n;
	}
	for (let i = 0, at = 0; i < out.length; i++, at += 4) {
		const n = sums[at + 3], s = share[n];
		out[i] = n && (alpha[n] << 24) | ((sums[at + 2] * s) << 16) | ((sums[at + 1] * s) << 8) | (sums[at] * s);
	}
	context.putImageData(data.pixels, 0, 0);
}
