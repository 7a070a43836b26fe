"use strict";
(() => {
  const cards = [...document.querySelectorAll("#cards > details")];
  const form = document.getElementById("filter");
  const texts = new Map();

  const textOf = (card) => {
    if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
    return texts.get(card);
  };
  const valueOf = (id) => document.getElementById(id)?.value ?? "";

  function filter() {
    const kind = valueOf("kind");
    const slice = valueOf("slice");
    const least = Number(valueOf("least")) || 0;
    const words = valueOf("words").toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const card of cards) {
      const fits =
        (!kind || card.classList.contains(kind)) &&
        (!slice || card.dataset.s.split(" ").includes(slice)) &&
        (!least || Number(card.dataset.c ?? 0) >= least) &&
        words.every((word) => textOf(card).includes(word));
      card.hidden = !fits;
      found += fits;
    }
    document.getElementById("found").textContent = `${found.toLocaleString("en")} of ${cards.length.toLocaleString("en")} shown`;
  }

  function openTarget() {
    const name = location.hash.slice(1);
    const card = name.startsWith("flip-") ? document.getElementById(name) : null;
    if (!card) return;
    if (card.hidden) {
      form.reset();
      filter();
    }
    card.open = true;
    card.scrollIntoView({ block: "start" });
  }

  function addCopyButton(card) {
    const line = card.querySelector(".tags");
    if (!line || line.querySelector("button")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy id";
    button.addEventListener("click", async () => {
      const id = card.querySelector(".id");
      try {
        await navigator.clipboard.writeText(id.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(id);
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy id"; }, 1500);
    });
    line.append(button);
  }

  // The same marks as in the worst flips, made when a flip is opened: see words.py.
  const tokens = /(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s])\s*|\s+/gu;

  function numbered(list) {
    const seen = new Map();
    return list.map((token) => {
      const number = seen.get(token) ?? 0;
      seen.set(token, number + 1);
      return `${token}\n${number}`;
    });
  }

  function rising(pairs) {
    const tops = [], ends = [], before = [], run = [];
    pairs.forEach(([, place], index) => {
      let low = 0, high = tops.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (tops[middle] < place) low = middle + 1;
        else high = middle;
      }
      before.push(low ? ends[low - 1] : -1);
      tops[low] = place;
      ends[low] = index;
    });
    for (let index = ends.at(-1) ?? -1; index >= 0; index = before[index]) run.push(pairs[index]);
    return run.reverse();
  }

  function kept(left, right) {
    const inOld = new Set(), inNew = new Set();
    const places = new Map(numbered(right).map((key, place) => [key, place]));
    const pairs = numbered(left).map((key, place) => [place, places.get(key)]).filter((pair) => pair[1] !== undefined);
    for (const [start, other] of rising(pairs)) {
      for (const step of [1, -1]) {
        let one = step > 0 ? start : start - 1, two = step > 0 ? other : other - 1;
        while (one >= 0 && two >= 0 && one < left.length && two < right.length && left[one] === right[two]) {
          if (inOld.has(one) || inNew.has(two)) break;
          inOld.add(one);
          inNew.add(two);
          one += step;
          two += step;
        }
      }
    }
    return [inOld, inNew];
  }

  function markDifferences(card) {
    if (!("plain" in card.dataset)) return;
    delete card.dataset.plain;
    const boxes = [...card.querySelectorAll(".answer > .text")];
    if (boxes.length !== 2 || boxes[0].textContent === boxes[1].textContent) return;
    const lists = boxes.map((box) => box.textContent.match(tokens) ?? []);
    const keeps = kept(...lists.map((list) => list.map((token) => token.trimEnd())));
    if (5 * keeps[0].size < Math.min(lists[0].length, lists[1].length)) return;
    boxes.forEach((box, side) => {
      const nodes = [];
      lists[side].forEach((token, place) => {
        const differs = !keeps[side].has(place) && token.trim() !== "";
        const last = nodes.at(-1);
        if (last && last.differs === differs) last.text += token;
        else nodes.push({ differs, text: token });
      });
      box.replaceChildren(...nodes.flatMap(({ differs, text }) => {
        if (!differs) return [text];
        const mark = document.createElement("mark");
        mark.textContent = text.trimEnd();
        return [mark, text.slice(mark.textContent.length)];
      }));
    });
  }

  function opened(event) {
    if (!event.target.open) return;
    markDifferences(event.target);
    addCopyButton(event.target);
  }

  if (form) {
    let waiting = 0;
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 80);
    });
    filter();
    for (const card of cards) card.addEventListener("toggle", opened);
    document.getElementById("unmarked")?.remove();
    window.addEventListener("hashchange", openTarget);
    openTarget();
  }
})();
