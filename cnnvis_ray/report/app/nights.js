// Nights: new images placed in the run's map, and whether they differ from the run.
"use strict";

app.pages.nights = { title: "Nights", when: () => run.nights.length > 0, first: () => ["nights"], show: showNights };
app.pages.night = { title: "Night", of: "nights", show: showNight };

function showNights(parts, query, main) {
	const score = run.nights.map((night) => night.score);
	add(main, h("h1", "Nights"), section("Score over its threshold: above the line is an alarm", curve("Score of each night over its threshold", score, [run.nights[0].name, "", run.nights.at(-1).name], 1)),
		section("All nights", table("Nights", ["night", "verdict", "images", "score / threshold", "smallest change that would show"], run.nights.map((night) => [link(["night", night.name], name(night.name)), verdict(night),
			show(night.images), show(night.score), percent(night.smallest)]))));
}

function verdict(night) {
	return h("b." + (night.verdict === "changed" ? "changed" : "same"), night.verdict);
}

async function showNight([text], query, main) {
	const at = run.nights.findIndex((found) => found.name === text), night = run.nights[at];
	if (!night) return missing(main, `There is no night ${text}.`);
	const found = await load("night/" + night.file), cell = (order, side) => cut("tile", cellOf("night/" + night.file, order, 16), side, "image of the night");
	add(main, h("p.trail", link(["nights"], "Nights"), steps(at, run.nights.length, (other) => [address("night", run.nights[other].name), clean(run.nights[other].name, 30)])),
		h("h1", name(text), ": ", verdict(night)), found.reason && h("p", found.reason), facts(found.facts),
		section("Channels that moved most", found.channels.length > 0 && h("div.two", found.channels.map(({ layer, channel, shift, before, after }) => h("article.moved",
			h("h3", layerOf(layer)?.layer ? link(["channel", layer, channel], `${layer} / ${channel}`) : `${layer} / ${channel}`), quiet(`${shift > 0 ? "+" : "−"}${show(Math.abs(shift), 2)} standard deviations`),
			h("div.row", before.length > 0 && h("div", quiet("the run's strongest"), gallery(before, 64)), after.length > 0 && h("div", quiet("this night's"), h("div.gallery", after.map((order) => cell(order, 64))))))))),
		section("Strangest images", found.strangest.length > 0 && h("div.seen", found.strangest.map(([order, key, distance]) => h("span.pair", order >= 0 && cell(order, 96), h("span.quiet", name(key, 28), " · ", show(distance)))))),
		section("Layers", found.layers.length > 0 && table("Layers", ["layer", "score", "threshold", "largest shift", "neighbours kept", "in the run"], found.layers.map(([layer, ...numbers]) => [name(layer), ...numbers.map((value) => show(value))]))),
		section("Rejected", found.rejected.length > 0 && table("Rejected", ["reason", "images"], found.rejected.map(([reason, count]) => [name(reason, 200), show(count)]))));
}
