// Pieces: data files are classic scripts that call piece(name, value), since fetch fails on file://.
"use strict";

const pieces = { loaded: new Map(), waiting: new Map(), asked: 0, arriving: null };

function piece(name, value) {
	pieces.arriving = [name, value];
}

// Load a data file once; resolves to its value, rejects with its name.
function load(name) {
	const known = pieces.loaded.has(name) ? Promise.resolve(pieces.loaded.get(name)) : pieces.waiting.get(name);
	if (known) return known;
	const promise = new Promise((resolve, reject) => {
		const script = document.createElement("script");
		script.src = "data/" + name.split("/").map(encodeURIComponent).join("/") + ".js";
		const fail = () => {
			const line = document.getElementById("failed"), text = `data/${name}.js did not load`;
			line.textContent = text + ". Write the report again, or copy its whole folder.";
			line.hidden = false;
			reject(new Error(text));
		};
		script.onerror = fail;
		script.onload = () => {
			const [found, value] = pieces.arriving || [];
			pieces.arriving = null;
			script.remove();
			if (found !== name) return fail();
			keep(name, value);
			resolve(value);
		};
		document.head.append(script);
	});
	const settle = () => {
		pieces.waiting.delete(name);
		showProgress();
	};
	pieces.waiting.set(name, promise);
	pieces.asked += 1;
	showProgress();
	promise.then(settle, settle);
	return promise;
}

// Of some hundred pieces, the details of pages visited long ago go; what every page reads stays.
function keep(name, value) {
	pieces.loaded.set(name, value);
	if (pieces.loaded.size < 600) return;
	const old = [...pieces.loaded.keys()].find((key) => /^(channels|heat|strongest|neighbours|images)\//.test(key));
	pieces.loaded.delete(old);
}

function showProgress() {
	const bar = document.getElementById("bar"), left = pieces.waiting.size;
	const share = left ? Math.round(100 - (100 * left) / pieces.asked) : 100;
	if (!left) pieces.asked = 0;
	bar.hidden = !left;
	bar.setAttribute("aria-valuenow", share);
	bar.firstElementChild.style.width = Math.max(8, share) + "%";
}

// Decode base64 of a little-endian array.
function unpack(text, Kind) {
	const bytes = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
	return new Kind(bytes.buffer, bytes.byteOffset, bytes.byteLength / Kind.BYTES_PER_ELEMENT);
}
