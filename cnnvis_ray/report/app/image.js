// An image: what it is called, what answered to it, where the network looked, what lies near.
"use strict";

app.pages.image = { title: "Image", of: "images", show: showImage };

async function showImage([key, number], query, main) {
	let image = number ? Number(number) : -1;
	if (!(image >= 0 && image < run.images) || (key && (await keyOf(image)) !== key)) image = await findKey(key);
	if (image < 0) return missing(main, `There is no image ${key}.`);
	const found = await imageOf(image), each = (kind, call) => Promise.all(run.layers.filter((layer) => layer[kind]).map(async (layer) => h("div", h("h3", name(layer.name)), await call(layer, unitOf(image)))));
	const near = await each("neighbours", async (layer, { name, row }) => {
		const { images, width } = await load(`neighbours/${layer.file}/${name}`);
		return gallery(Array.from(unpack(images, Int32Array).subarray(row * width, (row + 1) * width)).filter((other) => other >= 0), 84);
	});
	const strong = await each("strongest", strongest);
	app.focus = image;
	add(main, h("p.trail", link(["images"], "Images"), steps(image, run.images, (other) => [imageAddress(other), other])), h("h1.key", name(found.key, 160)),
		h("div.facing", await looked(found), h("div", facts([["label", found.label && classLink(found.label)], ["size", `${found.width} × ${found.height}`]]),
			section("The network calls it", ranks(found.top.map(([text, probability]) => [classLink(text), probability]))),
			app.mapped.length > 0 && h("p.words", "On the map of ", app.mapped.map((layer) => h("a", { href: `${address("map", layer.name)}?image=${image}` }, name(layer.name)))))),
		section("Nearest images", near.length > 0 && h("div.sides", near)), section("Strongest channels", strong.length > 0 && [h("div.sides", strong), quiet(SPREADS)]));
}

// The whole image, with heat over it where it was explained.
async function looked(found) {
	const frame = whole(found, Math.min(440, innerWidth - 40)), figure = h("figure", frame);
	const maps = run.explained.includes(found.image) ? (await load("heat/" + unitOf(found.image).name))[found.image] : [];
	if (!maps.length) return figure;
	const caption = h("figcaption"), heat = h("img.heat");
	const slider = h("input", { type: "range", min: 0, max: 100, value: 60, oninput: () => { heat.style.opacity = slider.value / 100; } });
	const put = ({ method, name: called, score, png }) => {
		Object.assign(heat, { src: "data:image/png;base64," + png, alt: `Heat map: ${method} for ${clean(called, 60)}` });
		caption.replaceChildren("Where the network looks for ", name(called, 60), ` (${percent(score)}).`);
	};
	frame.put(heat, inputBox(found));
	heat.style.opacity = 0.6;
	put(maps[0]);
	return add(figure, h("div.row", choice("Heat map", maps.map((map, i) => [i, map.method.replace(/_/g, " ")]), 0, (value) => put(maps[value])), h("label.choice", h("span", "Strength"), slider)), caption);
}

// Of the channels with the largest values, those furthest above their own mean.
async function strongest(layer, { name, row }) {
	const [rows, { spread, numbers }] = await Promise.all([load(`strongest/${layer.file}/${name}`), load("layers/" + layer.file)]);
	const own = (text, Kind) => unpack(text, Kind).subarray(row * rows.width, (row + 1) * rows.width), channels = own(rows.channel, Uint16Array);
	const found = Array.from(own(rows.value, Float32Array), (value, i) => [channels[i], value > 0 && spread[channels[i]] ? (value - numbers.mean[channels[i]]) / spread[channels[i]] : 0]);
	return channelTiles(layer, found.filter(([, above]) => above > 0).sort((a, b) => b[1] - a[1]).slice(0, 6), spreads);
}
