// A layer: its channels as tiles, sorted and filtered.
"use strict";

app.pages.layer = { title: "Channels", when: () => run.layers.some((layer) => layer.layer), first: () => ["layer", run.layers.find((layer) => layer.layer).name], show: showLayer };

const SORTS = { channel: "number", sparsity: "sparsity", selectivity: "selectivity", maximum: "largest activation",
	excited: "share of images that excite it", percentile: "percentile of its picture", strongest: "share of images where it leads" };

async function showLayer([layerName], query, main) {
	const layer = layerOf(layerName);
	if (!layer?.layer) return missing(main, `There are no channels of ${layerName}.`);
	const rows = await load("layers/" + layer.file), { numbers, status, picture } = rows;
	const dead = (c) => (numbers.peak_maximum?.[c] ?? 1) <= 0 || status[c] === "dead";
	const filters = { all: ["all", () => true], live: ["alive", (c) => !dead(c)], silent: ["dead: no image excites it", dead] };
	if (layer.pictures) Object.assign(filters, { pictures: ["with a picture", (c) => picture[c] >= 0], stuck: ["stuck picture", (c) => status[c] === "stuck"] });
	const sorts = Object.entries(SORTS).filter(([key]) => key === "channel" || numbers[key]?.some((value) => value !== null));
	let sort = query.get("sort") || "channel", filter = query.get("show");
	if (!Object.hasOwn(filters, filter)) filter = "all";
	const grid = h("div.channels"), count = h("span.quiet", { role: "status" });
	const redraw = () => {
		const values = numbers[sort], shown = Array.from({ length: rows.count }, (_, channel) => channel).filter(filters[filter][1]);
		if (values) shown.sort((a, b) => (values[b] ?? -Infinity) - (values[a] ?? -Infinity) || a - b);
		count.textContent = `${show(shown.length)} of ${show(rows.count)} channels`;
		grid.replaceChildren(...shown.map((channel) => channelTile(layer, rows, channel, 138, values && show(values[channel]), rows.classes?.[channel])));
		history.replaceState(null, "", `${address("layer", layerName)}?sort=${sort}&show=${filter}`);
	};
	add(main, h("h1", name(layerName)), h("div.row",
		chooseNamed("Layer", run.layers.filter((found) => found.layer), layerName, (chosen) => go("layer", chosen)),
		choice("Sort by", sorts, sort, (chosen) => { sort = chosen; redraw(); }),
		choice("Show", Object.entries(filters).map(([key, [text]]) => [key, text]), filter, (chosen) => { filter = chosen; redraw(); }),
		count, layer.map && link(["map", layerName], "Its map")), grid);
	redraw();
}

function channelTile(layer, rows, channel, side, text, label) {
	const picture = rows.picture[channel], crop = rows.crops[channel], best = rows.best[channel], status = rows.status[channel];
	const face = picture >= 0 ? cut("tile", cellOf("pictures/" + layer.file, picture, 16), side, `Picture of channel ${channel}`)
		: best !== null ? tile(best, side, `Strongest image of channel ${channel}`) : h("span.tile empty", { style: { width: side + "px", height: side + "px" } }, "silent");
	return h("a.channel", { style: { width: side + "px" }, href: address("channel", layer.name, channel) }, face,
		crop >= 0 && h("span.strip", [0, 1, 2, 3].map((i) => cut("tile", cellOf("crops/" + layer.file, 4 * crop + i, 16), side / 4, "crop"))),
		h("span.name", h("b", channel), status && status !== "live" && h("em", status), text && h("span.quiet", text)),
		typeof label === "number" && h("span.quiet", name(say(run.classes[label]), 22)));
}

// Some of a layer's channels with a number each.
async function channelTiles(layer, found, text) {
	const rows = await load("layers/" + layer.file);
	return found.length > 0 && h("div.channels", found.map(([channel, value]) => channelTile(layer, rows, channel, 112, text(value))));
}

function spreads(value) {
	return "+" + show(value, 2);
}

const SPREADS = "Spreads above the channel's mean.";
