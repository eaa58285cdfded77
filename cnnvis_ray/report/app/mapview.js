// A map on a page: two canvases, moved by pointer, wheel and keys; linked maps share the selection.
"use strict";

const KEYS = "Arrow keys move, plus and minus zoom, Enter opens the image in the middle.";

class MapView {
	constructor(label) {
		this.points = h("canvas.points", { "aria-hidden": "true" });
		this.over = h("canvas.over", { "aria-hidden": "true" });
		this.tip = h("div.tip", { hidden: true, "aria-hidden": "true" });
		this.box = h("div.map", { tabindex: 0, role: "application", "aria-label": `${label}. ${KEYS}` }, this.points, this.over, this.tip);
		this.picked = h("div.picked", { "aria-live": "polite" });
		this.view = { x: 32768, y: 32768, zoom: 1 };
		this.fingers = new Map();
		this.linked = [this];
		this.listen();
		const watch = new ResizeObserver(() => this.resize());
		watch.observe(this.box);
		leave(() => watch.disconnect());
	}

	async open({ file }) {
		const { xy, ids, lod, ...rest } = await load("map/" + file);
		this.data = { file, pictures: true, words: true, ...rest, xy: unpack(xy, Uint16Array), ids: ids && unpack(ids, Uint32Array),
			lod: lod.map(([cells, points]) => [cells, unpack(points, Uint32Array)]) };
		paint(this.data, new Uint8Array(rest.count), "plain");
		this.paintSelection();
		this.resize();
	}

	imageOf(point) {
		return this.data.ids ? this.data.ids[point] : point;
	}

	pointOf(image) {
		const { ids, count } = this.data;
		return ids ? ids.indexOf(image) : image !== null && image < count ? image : -1;
	}

	resize() {
		this.ratio = this.data?.count > 200000 ? 1 : Math.min(2, devicePixelRatio || 1);
		for (const canvas of [this.points, this.over]) {
			canvas.width = Math.max(1, Math.round(this.box.clientWidth * this.ratio));
			canvas.height = Math.max(1, Math.round(this.box.clientHeight * this.ratio));
		}
		this.draw();
	}

	// The view in pixels of a canvas.
	frame({ width, height } = this.points, ratio = this.ratio) {
		const { x, y, zoom } = this.view, scale = (zoom * 0.9 * Math.min(width, height)) / 65536;
		const left = x - width / 2 / scale, top = y - height / 2 / scale;
		return { scale, width, height, ratio, zoom, left, top, right: left + width / scale, bottom: top + height / scale };
	}

	draw() {
		if (this.asked || !this.data) return;
		this.asked = requestAnimationFrame(() => {
			this.asked = 0;
			this.drawNow();
		});
	}

	drawNow() {
		const start = performance.now(), frame = this.frame();
		drawPoints(this.points, this.data, frame);
		this.over.getContext("2d").clearRect(0, 0, frame.width, frame.height);
		drawPictures(this.over, this.data, frame, () => this.draw());
		drawWords(this.over, this.data, frame);
		this.drawMarks(frame);
		this.milliseconds = performance.now() - start;
	}

	// The image that was looked at last, and the lasso.
	drawMarks({ left, top, scale, ratio }) {
		const context = this.over.getContext("2d"), { xy } = this.data, point = this.pointOf(app.focus);
		context.strokeStyle = dark() ? "#fff" : "#000";
		context.lineWidth = 2 * ratio;
		context.beginPath();
		if (point >= 0) context.arc((xy[2 * point] - left) * scale, (xy[2 * point + 1] - top) * scale, 30 * ratio, 0, 7);
		context.stroke();
		if (!this.path) return;
		context.setLineDash([6, 5]);
		context.beginPath();
		for (const [x, y] of this.path) context.lineTo((x - left) * scale, (y - top) * scale);
		context.closePath();
		context.stroke();
		context.setLineDash([]);
	}

	// Map steps under a pointer.
	at(event) {
		const box = this.box.getBoundingClientRect(), { left, top, scale } = this.frame(), steps = this.ratio / scale;
		return [left + (event.clientX - box.left) * steps, top + (event.clientY - box.top) * steps];
	}

	move(x, y, zoom = this.view.zoom) {
		this.view = { x: Math.min(65536, Math.max(0, x)), y: Math.min(65536, Math.max(0, y)), zoom };
		this.moved?.();
		this.draw();
	}

	zoomBy(factor, [x, y] = [this.view.x, this.view.y]) {
		const zoom = Math.min(600, Math.max(0.7, this.view.zoom * factor)), ratio = this.view.zoom / zoom;
		this.move(x + (this.view.x - x) * ratio, y + (this.view.y - y) * ratio, zoom);
	}

	// The image under a pointer: the topmost picture, else the nearest point within 14 pixels.
	pick([x, y]) {
		const { xy, count, boxes = [] } = this.data, { left, top, scale, ratio } = this.frame();
		const px = (x - left) * scale, py = (y - top) * scale;
		const box = boxes.findLast(([, bx, by, side]) => px >= bx && py >= by && px < bx + side && py < by + side);
		if (box) return this.imageOf(box[0]);
		let best = -1, nearest = ((14 * ratio) / scale) ** 2;
		for (let i = 0; i < count; i++) {
			const distance = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
			if (distance < nearest) [best, nearest] = [i, distance];
		}
		return best < 0 ? null : this.imageOf(best);
	}

	listen() {
		const on = (kind, call) => this.box.addEventListener(kind, (event) => this.data && call(event), { passive: false });
		on("wheel", (event) => {
			event.preventDefault();
			this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), this.at(event));
		});
		on("pointerdown", (event) => this.press(event));
		on("pointermove", (event) => this.drag(event));
		on("pointerup", (event) => this.release(event));
		on("pointercancel", (event) => this.release(event));
		on("pointerleave", () => { this.tip.hidden = true; });
		on("keydown", (event) => this.key(event));
	}

	press(event) {
		if (event.button > 0) return;
		this.box.setPointerCapture?.(event.pointerId);
		this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
		this.still = true;
		this.path = this.lasso || event.shiftKey ? [this.at(event)] : null;
	}

	drag(event) {
		const before = this.fingers.get(event.pointerId), now = [event.clientX, event.clientY];
		if (!before) return this.hover(event);
		const [dx, dy] = [now[0] - before[0], now[1] - before[1]], other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
		if (Math.hypot(dx, dy) < (this.still ? 4 : 0.5)) return;
		this.still = false;
		this.fingers.set(event.pointerId, now);
		if (this.path) {
			this.path.push(this.at(event));
			this.draw();
		} else if (other) {
			const away = ([x, y]) => Math.hypot(x - other[0], y - other[1]) || 1;
			this.zoomBy(away(now) / away(before), this.at({ clientX: other[0], clientY: other[1] }));
		} else {
			const steps = this.ratio / this.frame().scale;
			this.move(this.view.x - dx * steps, this.view.y - dy * steps);
		}
	}

	release(event) {
		const { path } = this;
		if (!this.fingers.delete(event.pointerId)) return;
		this.path = null;
		if (path?.length > 2) this.reselect(inside(this.data, path).map((point) => this.imageOf(point)));
		else if (this.still && event.type === "pointerup") this.clicked?.(this.pick(this.at(event)));
	}

	key(event) {
		const step = 6000 / this.view.zoom, { x, y } = this.view;
		const calls = { ArrowLeft: () => this.move(x - step, y), ArrowRight: () => this.move(x + step, y), ArrowUp: () => this.move(x, y - step),
			ArrowDown: () => this.move(x, y + step), "+": () => this.zoomBy(1.5), "=": () => this.zoomBy(1.5), "-": () => this.zoomBy(1 / 1.5),
			0: () => this.move(32768, 32768, 1), Enter: () => this.clicked?.(this.pick([x, y])) };
		if (!Object.hasOwn(calls, event.key)) return;
		calls[event.key]();
		event.preventDefault();
	}

	// Show what is under the pointer, with its key.
	async hover(event) {
		const image = this.pick(this.at(event)), box = this.box.getBoundingClientRect(), { style } = this.tip;
		this.box.classList.toggle("over-image", image !== null);
		this.tip.hidden = image === null;
		style.left = Math.min(event.clientX - box.left + 14, box.width - 240) + "px";
		style.top = Math.min(event.clientY - box.top + 14, box.height - 120) + "px";
		if (image === null || image === this.hovered) return;
		this.hovered = image;
		const key = await keyOf(image);
		if (this.hovered === image) this.tip.replaceChildren(tile(image, 72), h("span", clean(key, 90)));
	}

	paintSelection() {
		const { ids } = this.data, { selection } = app;
		this.data.selected = selection && ids ? Uint8Array.from(ids, (image) => selection[image]) : selection;
	}

	reselect(images) {
		select(images);
		for (const view of this.linked) {
			view.paintSelection();
			view.draw();
		}
		this.showSelection();
	}

	showSelection() {
		const images = selectedImages();
		this.picked.replaceChildren();
		if (!images.length) return add(this.picked, quiet("Draw around points with the lasso, or hold shift, to select them. Click a picture to open it."));
		add(this.picked, h("h2", `${show(images.length)} selected`), gallery(images.slice(0, 24), 60),
			h("p.row", button("Clear", () => this.reselect(null)), h("a", { href: "#/images?selected=1" }, "All of them")));
	}

	lassoButton() {
		return toggle("Lasso", false, (on) => this.linked.forEach((view) => {
			view.lasso = on;
			view.box.classList.toggle("lasso", on);
		}));
	}
}

// The points inside a closed path, by the path's pixels on a canvas of its own.
function inside({ xy, count }, path) {
	const side = 1024, xs = path.map(([x]) => x), ys = path.map(([, y]) => y), left = Math.min(...xs), top = Math.min(...ys);
	const wide = side / (Math.max(...xs) - left || 1), tall = side / (Math.max(...ys) - top || 1), found = [];
	const context = h("canvas", { width: side, height: side }).getContext("2d");
	for (const [x, y] of path) context.lineTo((x - left) * wide, (y - top) * tall);
	context.fill();
	const pixels = context.getImageData(0, 0, side, side).data;
	for (let i = 0; i < count; i++) {
		const x = Math.floor((xy[2 * i] - left) * wide), y = Math.floor((xy[2 * i + 1] - top) * tall);
		if (x >= 0 && y >= 0 && x < side && y < side && pixels[4 * (y * side + x) + 3] > 127) found.push(i);
	}
	return found;
}
