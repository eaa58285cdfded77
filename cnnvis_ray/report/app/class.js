// A class: its images, where the network looks, its channels, what it is confused with.
"use strict";

app.pages.class = { title: "Class", of: "images", show: showClass };

async function showClass([text], query, main) {
	const index = run.classes.indexOf(text);
	if (index < 0) return missing(main, `There is no class ${text}.`);
	const [labels, predictions] = await Promise.all([columnOf("label"), columnOf("prediction")]);
	const of = (column) => Array.from({ length: run.images }, (_, i) => i).filter((i) => column?.[i] === index);
	const labelled = of(labels), called = of(predictions), own = labelled.length ? labelled : called, heat = run.classheat && (await load("classheat"))[index];
	const channels = await Promise.all(run.layers.filter((layer) => layer.classes).map(async (layer) => {
		const tiles = await channelTiles(layer, ((await load("classes/" + layer.file))[index] || []).filter(([, score]) => score > 0), spreads);
		return tiles && h("div", h("h3", name(layer.name)), tiles);
	}));
	add(main, h("h1", name(say(text), 160)), facts([["labelled so", labelled.length > 0 && show(labelled.length)], ["called so by the network", predictions && show(called.length)]]),
		showOnMap("Show it on the map", own), section("Images", gallery(own.slice(0, PAGE)), own.length > PAGE && quiet(`The first ${PAGE} of ${show(own.length)}.`)),
		section("Where the network looks", heat && heat.map(({ method, images, png }) => h("figure.small", h("img.heat", { src: "data:image/png;base64," + png, alt: `Mean heat map of ${clean(text, 60)} by ${method}` }),
			h("figcaption", `${method.replace(/_/g, " ")}, mean of ${show(images)}`)))),
		section(labelled.length ? "What the network calls them" : "What they are labelled", confusions(own, labelled.length ? predictions : labels)),
		section("Also called so", labelled.length > 0 && gallery(called.filter((image) => labels[image] !== index).slice(0, 48))),
		section("Its channels", channels.some(Boolean) && [h("div.sides", channels), quiet(SPREADS)]));
}

function confusions(images, column) {
	const counts = new Map();
	for (const image of column ? images : []) if (column[image] !== nothing()) counts.set(column[image], (counts.get(column[image]) || 0) + 1);
	return ranks([...counts].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([index, count]) => [classLink(run.classes[index]), count / images.length]));
}
