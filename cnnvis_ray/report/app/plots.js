// Small figures: bars, curves, ranks.
"use strict";

const WIDE = 420, TALL = 120;

// A figure with a text at the left, in the middle and at the right below it.
function figure(label, texts, ...shapes) {
	const anchors = ["start", "middle", "end"];
	return h("svg.plot", { viewBox: `0 0 ${WIDE} ${TALL + 22}`, role: "img", "aria-label": label }, shapes,
		texts.map((text, i) => h("text", { x: (i * WIDE) / 2, y: TALL + 17, "text-anchor": anchors[i] }, text)));
}

function histogram([values, last, counts], unit) {
	if (!counts.length) return quiet("No image excites it.");
	const step = WIDE / counts.length, top = Math.max(...counts), total = counts.reduce((sum, count) => sum + count, 0);
	const bars = counts.map((count, i) => {
		const height = count && Math.max(1.5, (count / top) * TALL), zero = values[i] <= 0 && (values[i + 1] ?? last) > 0;
		return h("rect." + (zero ? "zero" : "bar"), { x: i * step + 0.5, y: TALL - height, width: Math.max(1, step - 1), height },
			h("title", `${show(count)} images from ${show(values[i])}`));
	});
	return figure(`Histogram of ${show(total)} images from ${show(values[0])} to ${show(last)}`, [show(values[0]), unit, show(last)], bars);
}

// A line over equal steps; `alarm` draws a second, level one.
function curve(label, values, texts, alarm) {
	const known = values.filter((value) => value !== null);
	if (known.length < 2) return null;
	const low = Math.min(alarm ?? Infinity, ...known), high = Math.max(alarm ?? -Infinity, ...known), span = high - low || 1;
	const x = (i) => 2 + (i / (known.length - 1)) * (WIDE - 4), y = (value) => TALL - 4 - ((value - low) / span) * (TALL - 8);
	return figure(label, texts, alarm !== undefined && h("line.alarm", { x1: 0, x2: WIDE, y1: y(alarm), y2: y(alarm) }),
		h("polyline.curve", { points: known.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
}

// Rows of a name, a bar and a number.
function ranks(rows, text = percent) {
	const most = Math.max(...rows.map(([, value]) => value), 1e-9);
	return rows.length > 0 && h("ol.ranks", rows.map(([label, value]) => h("li", h("span.what", label),
		h("span.track", h("span", { style: { width: (100 * Math.max(0, value)) / most + "%" } })), h("span.value", text(value)))));
}
