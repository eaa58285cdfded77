// The run's data by image number, and pictures cut from sheets.
"use strict";

let run = null; // what every page needs to know, data/run.js
// `var`, so that it is reachable from outside: from the console and from tests.
var app = { pages: {}, starts: [], selection: null, focus: null, keys: [], columns: {}, view: null };

function prepare(found) {
	run = found;
	let first = 0;
	app.starts = run.units.map(([, rows]) => (first += rows) - rows);
	app.mapped = run.layers.filter((layer) => layer.map);
	app.wordnet = run.classes.slice(0, 50).some((text) => /^n\d{8}[_-]./.test(text));
}

// WordNet numbers in front of a class are for machines.
function say(text) {
	return app.wordnet ? text.replace(/^n\d{8}[_-]/, "").replace(/_/g, " ") : text;
}

function classLink(text, most = 60) {
	return link(["class", text], name(say(text), most));
}

function layerOf(layer) {
	return run.layers.find((found) => found.name === layer);
}

// The work unit of an image: its files' name, and the image's row in them.
function unitOf(image) {
	let low = 0, high = app.starts.length;
	while (high - low > 1) {
		const middle = (low + high) >> 1;
		if (app.starts[middle] <= image) low = middle;
		else high = middle;
	}
	return { name: String(run.units[low][0]).padStart(6, "0"), row: image - app.starts[low] };
}

async function keyOf(image) {
	const { name, row } = unitOf(image);
	return (await load("keys/" + name))[row];
}

async function imageOf(image) {
	const { name, row } = unitOf(image), [rows, key] = await Promise.all([load("images/" + name), keyOf(image)]);
	const [width, height] = unpack(rows.size, Uint32Array).slice(2 * row), own = rows.top[row], top = [];
	for (let i = 0; i < own.length; i += 2) top.push([rows.names[own[i]], own[i + 1]]);
	return { image, key, label: rows.classes[rows.label[row]], width, height, top };
}

function imageAddress(image, key = "") {
	return address("image", key, image);
}

// A cell of a sheet that has as many rows as columns.
function cellOf(path, order, columns) {
	const sheet = Math.floor(order / columns ** 2), at = order % columns ** 2;
	return { src: `sheets/${path}${sheet ? "-" + sheet : ""}.jpg`, x: at % columns, y: Math.floor(at / columns), columns };
}

function cellOfImage(folder, image, columns) {
	const { name, row } = unitOf(image);
	return cellOf(`${folder}/${name}`, row, columns);
}

function cut(kind, { src, x, y, columns }, side, text, width = side, height = side) {
	return h("span." + kind, { role: "img", "aria-label": clean(text, 120), style: {
		width: width + "px", height: height + "px", backgroundImage: `url("${src}")`,
		backgroundSize: `${columns * side}px auto`, backgroundPosition: `${-x * side}px ${-y * side}px` } });
}

function tile(image, side, text = "image " + image) {
	return cut("tile", cellOfImage("images", image, 32), side, text);
}

// A whole image, its longer side so long, in a frame that boxes and heat can be put on. Reports of
// very many images have its central square only.
function whole(found, longest) {
	const [left, top, wide, tall] = run.large ? [0, 0, found.width, found.height] : middle(found, 1);
	const scale = longest / Math.max(wide, tall);
	const cell = run.large ? cellOfImage("large", found.image, 16) : cellOfImage("images", found.image, 32);
	const frame = cut("whole", cell, longest, found.key, Math.max(1, Math.round(wide * scale)), Math.max(1, Math.round(tall * scale)));
	frame.put = (node, [x1, y1, x2, y2]) => {
		const at = { left: x1 - left, top: y1 - top, width: x2 - x1, height: y2 - y1 };
		for (const side in at) node.style[side] = at[side] * scale + "px";
		frame.append(node);
	};
	return frame;
}

// The central square of an image, this share of its shorter side: left, top, width, height.
function middle({ width, height }, share) {
	const side = Math.min(width, height) * share;
	return [(width - side) / 2, (height - side) / 2, side, side];
}

// The square of an image that the network sees, in pixels of the image.
function inputBox(found) {
	const [left, top, side] = middle(found, run.crop[1] / run.crop[0]);
	return [left, top, left + side, top + side];
}

// Label or prediction of every image; null where the run has none.
async function columnOf(kind) {
	const columns = await load("columns");
	if (!columns[kind]) return null;
	return (app.columns[kind] ||= unpack(columns[kind], columns.bytes === 2 ? Uint16Array : Uint8Array));
}

// What stands in a column for "none".
function nothing() {
	return run.classes.length > 255 ? 65535 : 255;
}

function gallery(images, side = 96) {
	return images.length > 0 && h("div.gallery", images.map((image) => {
		const entry = h("a", { href: imageAddress(image), title: "image " + image }, tile(image, side));
		const tell = async () => {
			entry.title = clean(await keyOf(image));
			entry.firstElementChild.setAttribute("aria-label", entry.title);
		};
		for (const kind of ["focus", "pointerenter"]) entry.addEventListener(kind, tell, { once: true });
		return entry;
	}));
}

function select(images) {
	app.selection = images?.length ? new Uint8Array(run.images) : null;
	for (const image of images || []) app.selection[image] = 1;
}

function selectedImages() {
	const found = [];
	app.selection?.forEach((on, image) => { if (on) found.push(image); });
	return found;
}

function showOnMap(text, images) {
	const last = app.mapped.at(-1);
	return last && images.length > 0 && h("p", button(text, () => {
		select(images);
		go("map", last.name);
	}));
}
