// A class: its images, where the network looks, its channels, what it is confused with.
"use strict";

app.pages.class = { title: "Class", show: showClass };

async function showClass([text], query, main) {
  const index = app.run.classes.indexOf(text);
  if (index < 0) return missing(main, `There is no class ${text}.`);
  const [label, prediction] = await Promise.all([columnOf("label"), columnOf("prediction")]);
  const labelled = [], called = [];
  for (let i = 0; i < app.run.images; i++) {
    if (label && label[i] === index) labelled.push(i);
    if (prediction && prediction[i] === index) called.push(i);
  }
  const own = labelled.length ? labelled : called, mapped = app.run.layers.filter((layer) => layer.map);
  add(main, [h("h1", {}, name(say(text), 160)), facts([["labelled so", labelled.length ? show(labelled.length) : null], ["called so by the network", prediction ? show(called.length) : null]]),
    mapped.length && own.length ? h("p", {}, h("button", { type: "button", onclick: () => {
      select(own);
      location.hash = address("map", mapped[mapped.length - 1].name);
    } }, "Show it on the map")) : null]);
  const heat = app.run.classheat ? (await load("classheat"))[index] : null;
  add(main, [section("Images", own.length ? gallery(own.slice(0, PAGE)) : null), own.length > PAGE && h("p", { class: "quiet" }, `The first ${PAGE} of ${show(own.length)}.`),
    section("Where the network looks", heat && heat.map((map) => h("figure", { class: "small" }, heatCanvas(map, `Mean heat map of ${clean(text, 60)} by ${map.method}`), h("figcaption", {}, `${map.method.replace(/_/g, " ")}, mean of ${show(map.images)}`)))),
    section(labelled.length ? "What the network calls them" : "What they are labelled", confusions(own, labelled.length ? prediction : label)),
    labelled.length && called.length ? section("Also called so", gallery(called.filter((image) => label[image] !== index).slice(0, 48))) : null,
    section("Its channels", await classChannels(index))]);
}

function confusions(images, column) {
  if (!column || !images.length) return null;
  const counts = new Map();
  for (const image of images) if (column[image] !== nothing()) counts.set(column[image], (counts.get(column[image]) || 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 10);
  return most.length ? ranks(most.map(([index, count]) => [link(["class", app.run.classes[index]], name(say(app.run.classes[index]), 60)), count / images.length])) : null;
}

async function classChannels(index) {
  const layers = app.run.layers.filter((layer) => layer.classes), blocks = [];
  for (const layer of layers) {
    const [classes, table] = await Promise.all([load("classes/" + layer.file), load("layers/" + layer.file)]);
    const rows = (classes[index] || []).filter(([, score]) => score > 0);
    if (rows.length) blocks.push(h("div", {}, h("h3", {}, name(layer.name)), neighbours(layer, table, rows, (value) => "+" + show(value, 2))));
  }
  return blocks.length ? [h("div", { class: "sides" }, blocks), h("p", { class: "quiet" }, "Spreads above the channel's mean.")] : null;
}
