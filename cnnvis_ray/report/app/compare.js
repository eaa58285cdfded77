// Two maps side by side, of two layers or of another run: one selection, and how far images moved.
"use strict";

app.pages.compare = { title: "Compare", when: () => sides().length > 1, first: () => ["compare", ...[run.others[0] ? app.mapped.at(-1) : sides()[0], sides().at(-1)].map((side) => side.name)], show: showCompare };

function sides() {
	return [...app.mapped, ...run.others];
}

async function showCompare(names, query, main) {
	const layers = names.slice(0, 2).map((text) => sides().find((side) => side.name === text));
	if (layers.length < 2 || layers.includes(undefined)) return missing(main, `There are no maps of ${names.join(" and ")}.`);
	const views = layers.map((layer) => new MapView("Map by " + layer.name)), legend = h("div.legend"), [{ picked }] = views;
	const pick = (side) => chooseNamed(side ? "and" : "Map", sides(), names[side], (value) => go("compare", ...(side ? [names[0], value] : [value, names[1]])));
	const recolour = async (kind) => {
		if (kind !== "moved") return Promise.all(views.map((view, i) => colourBy(view, kind, i ? h("div") : legend)));
		displace(...views);
		legend.replaceChildren(quiet("Bright points moved most, after the two maps were turned, mirrored and scaled onto each other."));
	};
	for (const view of views) {
		Object.assign(view, { linked: views, picked });
		view.clicked = async (image) => {
			app.focus = image;
			view.reselect(image === null ? null : selectedImages());
			if (image === null) return;
			const found = await imageOf(image);
			picked.replaceChildren(h("a.pair", { href: imageAddress(image, found.key) }, whole(found, 128), h("span", name(found.key, 80))));
		};
	}
	add(main, h("h1", name(names[0]), " and ", name(names[1])), h("div.row", pick(0), pick(1), choice("Colour by", [["moved", "how far they moved"], ...colourings([]).slice(1)], "moved", recolour), views[0].lassoButton()),
		h("div.two", views.map((view, i) => h("figure", view.box, h("figcaption", name(names[i]))))), legend, picked);
	await Promise.all(views.map((view, i) => view.open(layers[i])));
	for (const view of views) view.data.words = false;
	app.view = views[0];
	await recolour("moved");
	app.view.showSelection();
}

// Colour by the distance left after the turn, mirror and scale that put one map onto the other best
// (Procrustes in the plane; as complex numbers, the turn is the sum of conj(a) * b).
function displace(one, two) {
	const pairs = Array.from({ length: one.data.count }, (_, point) => [point, two.pointOf(one.imageOf(point))]).filter(([, other]) => other >= 0);
	const mean = ({ xy }, side, axis) => pairs.reduce((sum, pair) => sum + xy[2 * pair[side] + axis], 0) / Math.max(1, pairs.length);
	const [ax0, ay0, bx0, by0] = [mean(one.data, 0, 0), mean(one.data, 0, 1), mean(two.data, 1, 0), mean(two.data, 1, 1)];
	const at = ([p, q]) => [one.data.xy[2 * p] - ax0, one.data.xy[2 * p + 1] - ay0, two.data.xy[2 * q] - bx0, two.data.xy[2 * q + 1] - by0];
	const fit = (sign) => {
		let size = 0, c = 0, s = 0;
		for (const [ax, ay, bx, by] of pairs.map(at)) {
			size += ax * ax + ay * ay;
			c += ax * bx + sign * ay * by;
			s += ax * by - sign * ay * bx;
		}
		return { sign, c: c / (size || 1), s: s / (size || 1) };
	};
	const [plain, mirrored] = [fit(1), fit(-1)], { sign, c, s } = Math.hypot(mirrored.c, mirrored.s) > Math.hypot(plain.c, plain.s) ? mirrored : plain;
	const moved = pairs.map(at).map(([ax, ay, bx, by]) => Math.hypot(bx - (c * ax - s * sign * ay), by - (s * ax + c * sign * ay)));
	const high = Float64Array.from(moved).sort()[Math.floor(0.98 * (moved.length - 1))] || 1;
	[one, two].forEach((view, side) => {
		const colours = new Uint8Array(view.data.count).fill(255);
		pairs.forEach((pair, i) => { colours[pair[side]] = Math.min(254, (254 * moved[i]) / high); });
		paint(view.data, colours, "number");
		view.data.frames = true;
		view.draw();
	});
}
