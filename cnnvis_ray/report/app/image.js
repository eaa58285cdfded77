// An image: what it is called, what answered to it, where the network looked, what lies near.
"use strict";

app.pages.image = { title: "Image", show: showImage };

async function showImage([key, number], query, main) {
  let image = number === undefined ? -1 : Number(number);
  if (!(image >= 0 && image < app.run.images)) image = await findKey(key);
  else if (key && (await imageOf(image)).key !== key) image = await findKey(key);
  if (image < 0) return missing(main, `There is no image ${key}.`);
  const found = await imageOf(image), run = app.run;
  app.focus = image;
  const step = (other, rel, text) => (other < 0 || other >= run.images ? null : h("a", { href: imageAddress(other), rel }, text));
  add(main, [h("p", { class: "trail" }, h("a", { href: "#/images" }, "Images"), h("span", { class: "steps" }, step(image - 1, "prev", "← before"), step(image + 1, "next", "next →"))), h("h1", { class: "key" }, name(found.key, 160))]);
  const facing = h("div", { class: "facing" });
  main.append(facing);
  const mapped = run.layers.filter((layer) => layer.map);
  facing.append(await looked(found), h("div", {}, facts([["label", found.label === null ? null : link(["class", found.label], name(say(found.label), 60))], ["size", `${found.width} × ${found.height}`]]),
    section("The network calls it", found.top.length ? ranks(found.top.map(([text, probability]) => [link(["class", text], name(text, 60)), probability])) : null),
    mapped.length ? h("p", { class: "words" }, "On the map of ", mapped.map((layer) => h("a", { href: `${address("map", layer.name)}?image=${image}` }, name(layer.name)))) : null));
  const near = run.layers.filter((layer) => layer.neighbours), strong = run.layers.filter((layer) => layer.strongest && layer.layer);
  add(main, [section("Nearest images", near.length ? h("div", { class: "sides" }, await Promise.all(near.map((layer) => nearest(layer, image)))) : null),
    section("Strongest channels", strong.length ? h("div", { class: "sides" }, await Promise.all(strong.map((layer) => strongest(layer, image)))) : null)]);
}

async function findKey(key) {
  if (!key) return -1;
  const keys = await readKeys(), wanted = key.replace(/\n/g, " ").toLowerCase();
  for (let unit = 0; unit < keys.length; unit++) {
    if (!keys[unit].includes(wanted)) continue;
    const row = (await load("keys/" + String(app.run.units[unit][0]).padStart(6, "0"))).indexOf(key);
    if (row >= 0) return app.starts[unit] + row;
  }
  return -1;
}

// The whole image, with heat over it where it was explained.
async function looked(found) {
  const frame = whole(found, Math.min(440, innerWidth - 40)), figure = h("figure", {}, frame);
  if (!app.run.explained.includes(found.image)) return figure;
  const heat = await load("heat/" + place(found.image).name), maps = heat.images[found.image] || [];
  if (!maps.length) return figure;
  const box = inputBox(found), caption = h("figcaption");
  let layer = null;
  const slider = h("input", { type: "range", min: 0, max: 100, value: 60, "aria-label": "Strength of the heat map", oninput: () => { layer.style.opacity = slider.value / 100; } });
  const put = (map) => {
    layer?.remove();
    layer = heatCanvas(map, `Heat map: ${map.method} for ${clean(map.name, 60)}`);
    layer.style.opacity = slider.value / 100;
    const at = frame.place(box);
    for (const side of ["left", "top", "width", "height"]) layer.style[side] = at[side] + "px";
    frame.append(layer);
    caption.replaceChildren(`Where the network looks for `, name(map.name, 60), ` (${percent(map.score)}).`);
  };
  put(maps[0]);
  const methods = maps.map((map, i) => [String(i), map.method.replace(/_/g, " ")]);
  add(figure, [h("div", { class: "row" }, choice("Heat map", methods, "0", (value) => put(maps[value])), h("label", { class: "choice" }, h("span", {}, "Strength"), slider)), caption]);
  return figure;
}

async function nearest(layer, image) {
  const at = place(image), rows = await load(`neighbours/${layer.file}/${at.name}`), all = unpack(rows.images, Int32Array);
  const own = Array.from(all.subarray(at.row * rows.width, (at.row + 1) * rows.width)).filter((other) => other >= 0);
  return h("div", {}, h("h3", {}, name(layer.name)), gallery(own, 84));
}

// Of the channels with the largest values, those furthest above their own mean.
async function strongest(layer, image) {
  const at = place(image), [rows, table] = await Promise.all([load(`strongest/${layer.file}/${at.name}`), load("layers/" + layer.file)]);
  const channels = unpack(rows.channel, Uint16Array), values = unpack(rows.value, Float32Array), found = [];
  for (let i = at.row * rows.width; i < (at.row + 1) * rows.width; i++) {
    const spread = table.spread[channels[i]], above = spread ? (values[i] - table.numbers.mean[channels[i]]) / spread : 0;
    if (values[i] > 0) found.push([channels[i], above]);
  }
  found.sort((a, b) => b[1] - a[1]);
  return h("div", {}, h("h3", {}, name(layer.name)), neighbours(layer, table, found.slice(0, 6), (value) => "+" + show(value, 2)), h("p", { class: "quiet" }, "Spreads above the channel's mean."));
}
