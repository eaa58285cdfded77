// A channel: what it wants to see, what it saw, and the numbers.
"use strict";

app.pages.channel = { title: "Channel", of: "layer", show: showChannel };

async function showChannel([layerName, number], query, main) {
	const layer = layerOf(layerName), channel = Number(number);
	if (!layer?.layer) return missing(main, `There are no channels of ${layerName}.`);
	const { count } = await load("layers/" + layer.file);
	if (!(channel >= 0 && channel < count && Number.isInteger(channel))) return missing(main, `${layerName} has channels 0 to ${count - 1}.`);
	const detail = (await load(`channels/${layer.file}/${String(channel >> 4).padStart(4, "0")}`))[channel % 16], { picture, inputs } = detail;
	const before = inputs && layerOf(inputs[0]);
	add(main, h("p.trail", link(["layer", layerName], name(layerName)), steps(channel, count, (other) => [address("channel", layerName, other), other])),
		h("h1", name(layerName), " / ", channel),
		h("div.facing", picture && h("figure", h("img.picture", { alt: `What channel ${channel} of ${layerName} wants to see`, src: "data:image/jpeg;base64," + picture.jpeg }),
			h("figcaption", picture.status === "live" ? "Found by maximization: what excites it most." : `Maximization: ${picture.status}.`, " ", picture.note)),
			h("div", facts(detail.facts), picture && section("Curve of the picture", curve("Objective over the steps", picture.curve, ["objective " + show(picture.curve[0]), "", show(picture.curve.at(-1)) + " at the last step"])))),
		section("What excites it", await seen(detail.seen)),
		h("div.columns", section("Images by their largest activation", histogram(detail.bars, "activation, log scale")),
			section("Classes", detail.classes && ranks(detail.classes.map(([index, score]) => [classLink(run.classes[index]), score]), spreads), detail.classes?.length > 0 && quiet(SPREADS))),
		section("Channels that answer alike", detail.similar && await channelTiles(layer, detail.similar, (value) => value.toFixed(2))),
		section("Strongest inputs", before?.layer && [await channelTiles(before, inputs[1], (norm) => show(norm, 2)), quiet("Channels of ", name(before.name), " by the norm of the kernels that read them.")]));
}

// Links to the one before and the one after.
function steps(at, count, to) {
	const step = (other, rel, text) => other >= 0 && other < count && h("a", { href: to(other)[0], rel }, text(to(other)[1]));
	return h("span.steps", step(at - 1, "prev", (text) => "← " + text), step(at + 1, "next", (text) => text + " →"));
}

// Crops beside the whole image with the box of what the neuron sees; else images with the place.
async function seen(found) {
	return found.length > 0 && h("div.seen", await Promise.all(found.map(async ({ image, value, x, y, box, whole: all, jpeg }) => {
		const of = await imageOf(image), frame = whole(of, 148), [left, top, right, bottom] = inputBox(of);
		const at = [left + x * (right - left), top + y * (bottom - top)];
		if (box && !all) frame.put(h("span.box"), box);
		else if (typeof x === "number") frame.put(h("span.spot"), [...at, ...at]);
		return h("a.pair", { href: imageAddress(image, of.key), title: clean(of.key) }, jpeg && h("img.crop", { alt: all ? "It sees the whole image" : "What the neuron sees", src: "data:image/jpeg;base64," + jpeg }),
			frame, h("span.quiet", show(value), of.label && [" · ", name(say(of.label), 20)]));
	})));
}
