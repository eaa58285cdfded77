// The map of a layer: every image where its features put it.
"use strict";

app.pages.map = { title: "Map", when: () => app.mapped.length, first: () => ["map", app.mapped.at(-1).name], show: showMap };

async function showMap([layerName], query, main) {
	const layer = layerOf(layerName);
	if (!layer?.map) return missing(main, `There is no map of ${layerName}.`);
	const view = new MapView(`Map of ${run.images} images by ${layerName}`), side = h("aside.side", { "aria-label": "Map settings and selection" });
	const legend = h("div.legend"), tools = h("div.tools"), said = h("p.quiet", { role: "status" });
	add(main, h("div.mappage", h("div.stage", view.box, tools), add(side, h("h1", "Map of ", name(layerName)))));
	await view.open(layer);
	const { data } = view, colours = colourings(Object.keys(data.columns));
	const [x, y, zoom] = (query.get("view") || "").split(",").map(Number), image = query.get("image");
	if (image) app.focus = Number(image);
	const point = image ? view.pointOf(app.focus) : -1;
	if (zoom > 0) view.move(x, y, zoom);
	else if (point >= 0) view.move(data.xy[2 * point], data.xy[2 * point + 1], 5);
	const here = () => `${address("map", layerName)}?colour=${encodeURIComponent(app.colour)}`;
	view.moved = () => {
		clearTimeout(view.timer);
		view.timer = setTimeout(() => {
			const at = [Math.round(view.view.x), Math.round(view.view.y), view.view.zoom.toPrecision(4)];
			if (view.box.isConnected) history.replaceState(null, "", `${here()}&view=${at}`);
		}, 250);
	};
	const recolour = async (kind) => {
		app.colour = kind;
		await colourBy(view, kind, legend);
		view.moved();
	};
	view.clicked = async (found) => {
		if (found === null) return view.reselect(null);
		app.focus = found;
		view.draw();
		if (!app.selection || app.selection[found]) location.hash = imageAddress(found, await keyOf(found));
	};
	const wanted = [query.get("colour"), app.colour, firstColour()].find((kind) => colours.some(([key]) => key === kind));
	add(side, chooseNamed("Layer", app.mapped, layerName, (value) => { location.hash = here().replace(address("map", layerName), address("map", value)); }),
		choice("Colour by", colours, wanted, recolour), legend, view.picked,
		data.regions.length > 0 && h("details", { open: !app.selection && innerWidth > 800 }, h("summary", "Regions"), regionList(view)),
		facts(layer.facts), sampled(), said);
	add(tools, view.lassoButton(),
		toggle("Pictures", true, (on) => { data.pictures = on; view.draw(); }),
		toggle("Words", true, (on) => { data.words = on; view.draw(); }),
		button("+", () => view.zoomBy(1.6), "Zoom in"), button("−", () => view.zoomBy(1 / 1.6), "Zoom out"),
		button("Whole map", () => view.move(32768, 32768, 1)), button("Save as PNG", () => savePicture(view, legend, said)));
	app.view = view;
	app.colour = wanted;
	await colourBy(view, wanted, legend);
	view.showSelection();
}

function firstColour() {
	return run.labelled ? "label" : run.predicted ? "prediction" : "plain";
}

function colourings(columns) {
	return [["plain", "number of images"], run.labelled && ["label", "class"], run.predicted && ["prediction", "prediction"], ...columns.map((column) => [column, column])].filter(Boolean);
}

// Colour a map's points and say in the legend what a colour means.
async function colourBy(view, kind, legend) {
	const { data } = view, column = /^(label|prediction)$/.test(kind) && await columnOf(kind);
	legend.replaceChildren();
	data.frames = Boolean(column);
	data.legend = [];
	if (column) {
		const counts = new Map(), classes = Array.from({ length: data.count }, (_, point) => column[view.imageOf(point)]);
		for (const index of classes) if (index !== nothing()) counts.set(index, (counts.get(index) || 0) + 1);
		paint(data, Uint8Array.from(classes, (index) => (index === nothing() ? 255 : index % 255)), "class");
		const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 10);
		data.legend = most.map(([index]) => [data.palette[index % 255], say(run.classes[index])]);
		add(legend, h("ul", most.map(([index, count]) => h("li", h("span.dot", { style: { background: css(data.palette[index % 255]) } }), classLink(run.classes[index], 40), h("span.quiet", " " + show(count))))),
			counts.size > 10 && quiet(`and ${show(counts.size - 10)} more`));
	} else if (data.columns[kind]) {
		const [low, high, bytes] = data.columns[kind];
		paint(data, unpack(bytes, Uint8Array), "number");
		data.legend = [0, 127, 254].map((i) => [data.palette[i], `${kind} ${show(low + ((high - low) * i) / 254)}`]);
		const colours = [0, 64, 127, 190, 254].map((i) => css(data.palette[i]));
		add(legend, h("div.ramp", { style: { background: `linear-gradient(90deg, ${colours})` } }), h("p.ends", h("span", show(low)), h("span", show(high))));
	} else paint(data, new Uint8Array(data.count), "plain");
	view.draw();
}

function regionList(view) {
	const rows = view.data.regions.filter(([zoom]) => zoom === 1).sort((a, b) => b[3] - a[3]);
	return h("ul.regions", rows.map(([, x, y, count, words, share]) => h("li", h("button", { type: "button", title: `${percent(share)} of its images are called so`, onclick: () => view.move(x, y, 4) },
		h("span", name(words.map(say).join(", "), 70)), h("span.quiet", show(count))))));
}

// Save the view for a paper. A browser reads no pixel of pictures that were opened from disk, so
// there the points, words and legend are saved.
function savePicture(view, legend, said) {
	const width = 2400, height = Math.round((width * view.points.height) / view.points.width), paper = h("canvas", { width, height });
	const ratio = (width / view.points.width) * view.ratio, frame = view.frame(paper, ratio), onDisk = location.protocol === "file:";
	const data = { ...view.data, sums: null, pixels: null, pictures: view.data.pictures && !onDisk }, context = paper.getContext("2d");
	const points = h("canvas", { width, height }), size = 14 * ratio;
	drawPoints(points, data, frame);
	context.fillStyle = dark() ? "#121214" : "#fff";
	context.fillRect(0, 0, width, height);
	context.drawImage(points, 0, 0);
	drawPictures(paper, data, frame, () => {});
	drawWords(paper, data, frame);
	context.font = `${size}px system-ui, sans-serif`;
	context.textAlign = "left";
	data.legend.forEach(([colour, text], i) => {
		const y = (2 + 1.5 * i) * size;
		context.fillStyle = css(colour);
		context.fillRect(size, y - 0.8 * size, size, size);
		context.fillStyle = dark() ? "#fff" : "#111";
		context.strokeText(clean(text, 40), 2.5 * size, y);
		context.fillText(clean(text, 40), 2.5 * size, y);
	});
	h("a", { download: `${data.file}.png`, href: paper.toDataURL("image/png") }).click();
	if (onDisk) said.textContent = "Saved without pictures: a browser lets no page save those opened from disk. Open the report over HTTP to include them.";
}
