// Small figures as SVG: bars, curves; heat as pixels of a canvas.
"use strict";

function histogram(bars, unit) {
  const [values, last, counts] = bars;
  if (!counts.length) return h("p", { class: "quiet" }, "No image excites it.");
  const width = 420, height = 130, step = width / counts.length, top = Math.max(...counts);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const figure = shape("svg", { viewBox: `0 0 ${width} ${height + 22}`, class: "plot", role: "img", "aria-label": `Histogram of ${show(total)} images from ${show(values[0])} to ${show(last)}` });
  counts.forEach((count, i) => {
    const tall = count ? Math.max(1.5, (count / top) * height) : 0;
    const zero = values[i] <= 0 && (values[i + 1] ?? last) > 0;
    const bar = shape("rect", { x: i * step + 0.5, y: height - tall, width: Math.max(1, step - 1), height: tall, class: zero ? "zero" : "bar" });
    bar.append(shape("title", {}, `${show(count)} images from ${show(values[i])}`));
    figure.append(bar);
  });
  figure.append(shape("text", { x: 0, y: height + 17 }, show(values[0])), shape("text", { x: width, y: height + 17, "text-anchor": "end" }, show(last)),
    shape("text", { x: width / 2, y: height + 17, "text-anchor": "middle" }, unit));
  return figure;
}

function curve(values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const width = 420, height = 90, low = Math.min(...known), high = Math.max(...known), span = high - low || 1;
  const points = known.map((value, i) => `${((i / (known.length - 1)) * (width - 4) + 2).toFixed(1)},${(height - 4 - ((value - low) / span) * (height - 8)).toFixed(1)}`);
  return shape("svg", { viewBox: `0 0 ${width} ${height + 20}`, class: "plot", role: "img", "aria-label": `Objective from ${show(known[0])} to ${show(known[known.length - 1])} over the steps` },
    shape("polyline", { points: points.join(" "), class: "curve" }),
    shape("text", { x: 0, y: height + 16 }, "objective " + show(known[0])), shape("text", { x: width, y: height + 16, "text-anchor": "end" }, show(known[known.length - 1]) + " at the last step"));
}

// Rows of a name, a bar and a number.
function ranks(rows, text = percent) {
  const most = Math.max(...rows.map((row) => row[1]), 1e-9);
  return h("ol", { class: "ranks" }, rows.map(([label, value]) =>
    h("li", {}, h("span", { class: "what" }, label), h("span", { class: "track" }, h("span", { style: { width: (100 * Math.max(0, value)) / most + "%" } })), h("span", { class: "value" }, text(value)))));
}

// Inferno by five stops, readable by the colour blind.
const STOPS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function ramp(share, stops = STOPS) {
  const at = Math.min(0.9999, Math.max(0, share)) * (stops.length - 1), low = Math.floor(at), rest = at - low;
  return stops[low].map((value, i) => Math.round(value + (stops[low + 1][i] - value) * rest));
}

function heatCanvas(map, text) {
  const values = unpack(map.map, Uint8Array), side = map.side;
  const canvas = h("canvas", { class: "heat", role: "img", "aria-label": text, width: side, height: side });
  const context = canvas.getContext("2d"), pixels = context.createImageData(side, side);
  values.forEach((value, i) => pixels.data.set([...ramp(value / 255), 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  return canvas;
}
