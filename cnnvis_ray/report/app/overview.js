// The overview: what was run, on what, how it went; and its mosaics, to zoom into.
"use strict";

app.pages.overview = { title: "Overview", first: () => [], show: showOverview };

async function showOverview(parts, query, main) {
	const [hero, ...mosaics] = run.mosaics, last = app.mapped.at(-1), top = h("div.hero");
	add(main, h("h1", name(run.network || "A network"), ` on ${show(run.total)} images`), sampled(), top, facts(run.facts));
	if (hero) top.append(preview(hero));
	else if (last) {
		const view = new MapView("Map of " + last.name);
		top.append(view.box);
		await view.open(last);
		view.clicked = () => go("map", last.name);
		await colourBy(view, firstColour(), h("div"));
	} else add(top, gallery(Array.from({ length: Math.min(run.images, 48) }, (_, i) => Math.floor((i * run.images) / Math.min(run.images, 48)))));
	add(main, section("Layers", run.layers.length && h("div.cards", run.layers.map((layer) => h("article.card", h("h3", name(layer.name)),
		h("p.row", layer.map && link(["map", layer.name], "Map"), layer.layer && link(["layer", layer.name], "Channels")), facts(layer.facts))))),
		section("Mosaics", mosaics.map((mosaic) => h("figure.small", preview(mosaic), h("figcaption", name(mosaic.name))))),
		section("Run", facts(run.about.map(([term, text]) => [term, name(text)]))));
}

function sampled() {
	return run.total > run.images && quiet(`${show(run.images)} of ${show(run.total)} images are shown, evenly by class.`);
}

function preview(mosaic) {
	return link(["mosaic", mosaic.name], h("img.preview", { alt: "Mosaic " + mosaic.name, src: `mosaic/${mosaic.file}.jpg` }));
}

app.pages.mosaic = { title: "Mosaics", when: () => run.mosaics.length > 0, first: () => ["mosaic", run.mosaics[0].name], show: showMosaic };

async function showMosaic([text], query, main) {
	const found = run.mosaics.find((mosaic) => mosaic.name === text);
	if (!found) return missing(main, `There is no mosaic ${text}.`);
	const [tiles] = await Promise.all([load("mosaics/" + found.file), loadViewer()]), box = h("div.mosaic", { role: "img", "aria-label": "Mosaic " + text });
	const zoom = (factor) => viewer.viewport.zoomBy(factor).applyConstraints();
	add(main, h("div.row", h("h1", name(text)), chooseNamed("Mosaic", run.mosaics, text, (value) => go("mosaic", value)),
		button("+", () => zoom(1.6), "Zoom in"), button("−", () => zoom(1 / 1.6), "Zoom out"), button("Whole mosaic", () => viewer.viewport.goHome())), box);
	// Its WebGL drawer stays blank on file://, and a description by address would be a request.
	const viewer = OpenSeadragon({ element: box, drawer: "canvas", showNavigationControl: false, animationTime: 0.4, maxZoomPixelRatio: 2, gestureSettingsMouse: { clickToZoom: false },
		tileSources: { ...tiles, minLevel: 8, getTileUrl: (level, x, y) => `mosaic/${found.file}_files/${level}/${x}_${y}.jpg` } });
	leave(() => viewer.destroy());
}

function loadViewer() {
	return (app.viewer ||= new Promise((resolve, reject) => {
		// It adds a style to the page, which the policy refuses, unless an element of that name is there.
		const known = document.createElementNS("none", "style");
		known.setAttribute("data-openseadragon-mobile-css", "true");
		document.head.append(known, h("script", { src: "app/openseadragon.min.js", onload: resolve, onerror: () => reject(new Error("openseadragon.min.js did not load")) }));
	}));
}
