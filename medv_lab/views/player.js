/* Plays a trace in `root`, an element that holds the markup of player.html; without one, waits for `load`.
   `moved` is called with the pass to which a hand, or Play, moves the player; `follow` moves it without a call.
   `goOn`, where there is one, is called with the run and with the ids of a canvas that a hand made of the answer. */
"use strict";
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
};

function mount(root, first, moved = () => {}, goOn = null) {
  const get = (id) => root.querySelector(`#${id}`);
  const tokens = [];
  let data = null, passes = 0, commitsAt = [], draftsAt = [], highest = {}, looks = null, layout = null, described = null;
  let now = -1, colour = "step", chosen = 0, timer = 0, edited = null, overPasses = null;

  const pieceOf = (token) => data.pieces[token] || "";
  /* How a token reads in the canvas and in the table; a space that begins it shows as a gap or as a sign. */
  const labelOf = (token) => pieceOf(token).replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ (?=.)/, "") || `⟨${token}⟩`;
  const nameOf = (token) => (/^ ./.test(pieceOf(token)) ? "␣" : "") + labelOf(token);

  /* The last commit of a position up to a pass, -1 while it is masked. */
  function commitOf(position, pass) {
    const commits = commitsAt[position];
    for (let n = commits.length - 1; n >= 0; n--) {
      if (data.step[commits[n]] <= pass) return data.token[commits[n]] === data.mask ? -1 : commits[n];
    }
    return -1;
  }

  /* The token that was given at a position before the first pass, -1 for a mask. */
  const givenAt = (position) => (data.given.length && data.given[position] !== data.mask ? data.given[position] : -1);

  /* The token at a position after a pass, -1 for a mask. */
  function tokenAt(position, pass) {
    const commit = commitOf(position, pass);
    return commit < 0 ? givenAt(position) : data.token[commit];
  }

  /* What a pass would have written at a masked position, -1 where it predicted nothing. */
  function draftOf(position, pass) {
    const last = draftsAt[position].findLast(([step]) => step <= pass);
    return last && last[1] !== data.mask ? last[1] : -1;
  }

  /* Take the numbers of a trace. While a run goes on, whoever looks at its last pass goes on looking at the last. */
  function load(next) {
    const isNew = !data || data.run !== next.run;
    const isLast = isNew || now >= data.stops.length - 1;
    data = next;
    passes = data.stops.length;
    commitsAt = Array.from({ length: data.length }, () => []);
    data.position.forEach((position, commit) => commitsAt[position].push(commit));
    draftsAt = Array.from({ length: data.length }, () => []);
    const [draftSteps, draftPositions, draftTokens] = data.drafts;
    draftPositions.forEach((position, n) => draftsAt[position].push([draftSteps[n], draftTokens[n]]));
    highest = {
      step: Math.max(1, passes - 1),
      confidence: 1,
      entropy: data.entropy.reduce((most, value) => Math.max(most, value), 0) || 1,
    };
    overPasses = data.over_passes ? readPasses(data.over_passes) : null;
    if (isNew) pause();
    edited = null;
    get("edit").hidden = !goOn || data.born.length > 0;
    layOut();
    get("facts").textContent = data.facts;
    get("text").textContent = data.text;
    get("caption").hidden = !(data.caption || []).length;
    get("caption").replaceChildren(...(data.caption || []).map((line) => make("li", line)));
    get("sign-given").hidden = !data.given.length;
    get("with-drafts").hidden = !draftSteps.length;
    get("sign-drafts").hidden = !draftSteps.length || !get("drafts").checked;
    get("sign-behind").hidden = [data.first_stop, ...data.stops].every((stop) => stop >= data.length);
    get("sign-block").hidden = data.length <= data.block;
    get("pass").max = passes - 1;
    if (isNew) get("speed").value = data.length > 120 ? "30" : "8";
    get("ramp").style.background = `linear-gradient(to right, ${data.ramp.map((stop) => stop[0]).join(", ")})`;
    get("look").hidden = !data.picture;
    if (data.picture && get("image").getAttribute("src") !== data.picture) get("image").src = data.picture;
    looks = data.looks ? decode(data.looks) : null;
    if (isLast) now = passes - 1;
    paint();
  }

  /* Places for all tokens, as wide as what stands there in the end, so that nothing moves while it plays. */
  function layOut() {
    const lasts = Array.from({ length: data.length }, (_, position) => tokenAt(position, passes));
    const ends = lasts.map((last) => last >= 0 && pieceOf(last).includes("\n"));
    const wanted = `${data.length} ${data.block} ${ends.map(Number).join("")}`;
    if (wanted !== layout) placeNodes(ends);
    layout = wanted;
    tokens.forEach((token, position) => {
      const last = lasts[position];
      token.dataset.gap = last >= 0 && pieceOf(last).startsWith(" ") ? "1" : "";
      token.dataset.last = last < 0 ? "   " : labelOf(last);
    });
  }

  function placeNodes(endsLine) {
    chosen = Math.min(chosen, data.length - 1);
    tokens.length = 0;
    const nodes = [];
    for (let position = 0; position < data.length; position++) {
      if (position % data.block === 0 && data.length > data.block) {
        const border = make("span", `${position / data.block}`, "border");
        border.title = `block ${position / data.block}`;
        border.setAttribute("aria-hidden", "true");
        nodes.push(border);
      }
      const token = make("span", "", "token");
      token.dataset.position = position;
      token.tabIndex = position === chosen ? 0 : -1;
      token.setAttribute("role", "button");
      tokens.push(token);
      nodes.push(token);
      if (endsLine[position]) nodes.push(make("br"));
    }
    get("canvas").replaceChildren(...nodes);
  }

  function rampOf(commit) {
    const share = data[colour][commit] / highest[colour];
    return data.ramp[Math.min(data.ramp.length - 1, Math.max(0, Math.round(share * (data.ramp.length - 1))))];
  }

  function draw() {
    const stop = now < 0 ? data.first_stop : data.stops[now];
    const repeated = new Set(now < 0 ? [] : data.repeats[now]);
    tokens.forEach((node, position) => {
      const commit = commitOf(position, now);
      const classes = ["token"];
      const token = edited ? keptAt(position) : tokenAt(position, now);
      let text = "", background = "", ink = "", draft = "";
      if (token < 0) {
        classes.push("masked");
        const drafted = edited ? standing(position) : draftOf(position, now);
        if (drafted >= 0) draft = labelOf(drafted);
      } else if (edited) {
        text = labelOf(token);
        classes.push("kept");
      } else {
        text = labelOf(token);
        if (!pieceOf(token)) classes.push("special");
        if (repeated.has(position)) classes.push("repeated");
        if (commit < 0) classes.push("given");
        else {
          [background, ink] = rampOf(commit);
          if (data.step[commit] === now) classes.push("new");
        }
      }
      if (position >= stop) classes.push("behind");
      if (data.born.length && data.born[position] > now) classes.push("unborn");
      if (position === chosen) classes.push("chosen");
      const name = classes.join(" ");
      if (node.className !== name) node.className = name;
      if (node.textContent !== text) node.textContent = text;
      if (node.dataset.ink !== background) {
        node.dataset.ink = background;
        node.style.background = background;
        node.style.color = ink;
      }
      if ((node.dataset.draft || "") !== draft) node.dataset.draft = draft;
      const masked = draft ? `masked, draft ${draft}` : "masked";
      const spoken = token < 0 ? `position ${position}, ${masked}` : `position ${position}: ${text}`;
      if (node.getAttribute("aria-label") !== spoken) node.setAttribute("aria-label", spoken);
    });
    get("editing").setAttribute("aria-pressed", String(Boolean(edited)));
    get("canvas").classList.toggle("editing", Boolean(edited));
    for (const id of ["tools", "how"]) get(id).hidden = !edited;
    if (edited) {
      const masks = edited.filter((token) => token === data.mask).length;
      get("count").textContent = `${masks} of ${edited.length} masked`;
      get("go-on").disabled = !masks;
    }
    get("pass").value = now;
    const where = now < 0 ? `before the first of ${passes}` : `after pass ${now} (0–${passes - 1})`;
    get("where").textContent = where;
    get("pass").setAttribute("aria-valuetext", where);
    describe();
  }

  /* The token that a hand keeps at a position, -1 for a mask. */
  const keptAt = (position) => (edited[position] === data.mask ? -1 : edited[position]);

  /* What can be kept at a position: what stands there now, or else in the end, or else its draft; -1 for nothing. */
  const standing = (position) =>
    [tokenAt(position, now), tokenAt(position, passes), draftOf(position, now)].find((token) => token >= 0) ?? -1;

  /* Begin to edit the answer as it stands after this pass, or end it. */
  function edit(isOn) {
    pause();
    const canvas = tokens.map((_, position) => tokenAt(position, now));
    edited = isOn ? canvas.map((token) => (token < 0 ? data.mask : token)) : null;
    described = null;
    draw();
  }

  function keep(position, token) {
    if (token < 0) return;
    edited[position] = token;
    draw();
  }

  const turn = (position) => keep(position, keptAt(position) < 0 ? standing(position) : data.mask);

  /* Tokens and probabilities, one a position and pass. */
  function readPasses(parts) {
    const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return {
      token: new Int32Array(bytes(parts.token).buffer),
      probability: bytes(parts.probability),
      final: bytes(parts.final_probability),
    };
  }

  /* Draw how probable the final token was in each pass, and which one was ahead of it; faded once it stood. */
  function describePasses(position) {
    const box = make("div");
    box.id = "passes";
    const final = tokenAt(position, passes);
    const first = commitsAt[position].length ? data.step[commitsAt[position].at(-1)] : passes;
    const spans = [], bars = [];
    for (let pass = 0; pass < passes; pass++) {
      const at = pass * data.length + position;
      const token = overPasses.token[at];
      if (token < 0) continue; // not computed
      const [most, own] = [overPasses.probability[at], overPasses.final[at]].map((share) => (100 * share) / 255);
      const after = pass > first ? " after" : "";
      const bar = (low, high, kind) =>
        bars.push(`<rect x="${pass}" width="0.9" y="${100 - high}" height="${high - low}" class="${kind}${after}"/>`);
      bar(0, own, "final");
      if (token !== final) bar(own, Math.min(100, own + most), "other");
      if (spans.at(-1)?.token === token) spans.at(-1).to = pass;
      else spans.push({ token, from: pass, to: pass });
    }
    if (!spans.length) return null;
    const name = ({ token, from, to }) => `${from === to ? from : `${from}–${to}`} ${nameOf(token)}`;
    const chart = make("div");
    chart.innerHTML = `<svg viewBox="0 0 ${passes} 100" preserveAspectRatio="none" aria-hidden="true">${bars.join("")}</svg>`;
    const legend = make("p");
    legend.append(
      make("span", "■", "final"), final < 0 ? " (masked in the end) " : ` ${nameOf(final)}, the final token `,
      make("span", "■", "other"), " the most probable where that is another; faded once committed",
    );
    const ahead = spans.length > 8 ? [...spans.slice(0, 4).map(name), "…", ...spans.slice(-3).map(name)] : spans.map(name);
    box.append(make("div", "probability over all passes"), chart, legend, make("p", `most probable in pass ${ahead.join(", ")}`));
    return box;
  }

  function addFact(list, name, value, kind) {
    list.append(make("dt", name), make("dd", value, kind));
  }

  function describe() {
    const commit = commitOf(chosen, now);
    const earlier = (commitsAt[chosen] || []).filter((other) => other !== commit && data.step[other] <= now);
    const given = givenAt(chosen), draft = draftOf(chosen, now);
    const wanted = `${chosen} ${commit} ${draft} ${earlier.join()} ${data.run} ${passes}`;
    if (wanted === described) return; // scrubbing mostly changes nothing here
    described = wanted;
    const box = get("details");
    const list = make("dl");
    box.replaceChildren(make("h2", `Position ${chosen}, block ${Math.floor(chosen / data.block)}`), list);
    look(commit);
    if (given >= 0) {
      addFact(list, "token", nameOf(given), "piece");
      addFact(list, "id", String(given));
      addFact(list, "given", "before the first pass");
    } else if (commit < 0) {
      addFact(list, "token", "masked");
      if (draft >= 0) addFact(list, "draft", nameOf(draft), "piece");
    } else {
      const token = data.token[commit];
      addFact(list, "token", nameOf(token), "piece");
      addFact(list, "id", String(token));
      addFact(list, "committed in pass", String(data.step[commit]));
      addFact(list, "confidence", data.confidence[commit].toFixed(3));
      addFact(list, "entropy", `${data.entropy[commit].toFixed(3)} nats`);
    }
    for (const other of earlier) {
      addFact(list, `in pass ${data.step[other]}`, nameOf(data.token[other]), "piece");
    }
    describeAlternatives(box, edited && commit < 0 ? commitOf(chosen, passes) : commit);
    const chart = overPasses && describePasses(chosen);
    if (chart) box.append(chart);
  }

  function describeAlternatives(box, commit) {
    if (commit < 0 || !data.alternatives[commit].length) return;
    const table = make("table", undefined, edited ? "choices" : "");
    table.append(make("caption", `most probable tokens in pass ${data.step[commit]}`));
    for (const [token, probability] of data.alternatives[commit]) {
      const row = make("tr", undefined, token === data.token[commit] ? "taken" : "");
      const head = make("th", nameOf(token), "piece");
      head.scope = "row";
      head.dataset.token = token;
      const share = make("td", undefined, "share");
      const length = make("i");
      length.style.width = `${100 * probability}%`;
      share.append(length, make("span", probability.toFixed(3)));
      row.append(head, share);
      table.append(row);
    }
    box.append(table);
  }

  /* Shares come as one byte a patch, 255 for the patch that got most of a commit's attention. */
  function decode({ rows, columns, box, shares, most, pictures }) {
    const bytes = Uint8Array.from(atob(shares), (character) => character.charCodeAt(0));
    return { rows, columns, box, bytes, most, pictures };
  }

  /* Lay over the picture where a token looked when it was committed; nothing for a masked position. */
  function look(commit) {
    if (!data.picture) return;
    const heat = get("heat");
    heat.hidden = commit < 0 || !looks;
    if (heat.hidden) {
      get("looked").textContent = looks ? "masked: nothing was read for it yet" : "attention was not recorded";
      return;
    }
    const { rows, columns, box, bytes, most, pictures } = looks;
    const [left, top, right, bottom] = box.map((value) => `${100 * value}%`);
    Object.assign(heat, { width: columns, height: rows });
    Object.assign(heat.style, { left, top, width: `calc(${right} - ${left})`, height: `calc(${bottom} - ${top})` });
    const pixels = new ImageData(columns, rows);
    for (let patch = 0; patch < rows * columns; patch++) {
      pixels.data.set([255, 96, 0, 0.75 * bytes[commit * rows * columns + patch]], 4 * patch);
    }
    heat.getContext("2d").putImageData(pixels, 0, 0);
    const share = (value) => `${(100 * value).toFixed(value < 0.001 ? 3 : 1)} %`;
    get("looked").textContent =
      `${share(pictures[commit])} of its attention went to the picture, at most ${share(most[commit])} to one patch`;
  }

  function show(pass) {
    if (edited) described = edited = null;
    now = Math.min(passes - 1, Math.max(-1, pass));
    draw();
  }

  function choose(position) {
    if (position < 0 || position >= tokens.length) return;
    tokens[chosen].tabIndex = -1;
    tokens[chosen].classList.remove("chosen");
    chosen = position;
    tokens[chosen].tabIndex = 0;
    tokens[chosen].classList.add("chosen");
    describe();
  }

  function pause() {
    cancelAnimationFrame(timer);
    timer = 0;
    get("play").textContent = "Play";
    get("details").setAttribute("aria-live", "polite");
  }

  function play() {
    if (timer) return pause();
    if (now >= passes - 1) { show(-1); moved(now); }
    get("play").textContent = "Pause";
    get("details").setAttribute("aria-live", "off");
    const from = now;
    let start = null;
    const tick = (time) => {
      start = start === null ? time : start;
      const pass = Math.min(passes - 1, from + Math.floor(((time - start) / 1000) * Number(get("speed").value)));
      if (pass !== now) { show(pass); moved(now); }
      if (now >= passes - 1) return pause();
      timer = requestAnimationFrame(tick);
    };
    timer = requestAnimationFrame(tick);
  }

  function paint() {
    const names = { step: ["pass 0", `${highest.step}`], confidence: ["0", "1"], entropy: ["0", `${highest.entropy.toFixed(2)} nats`] };
    [get("low").textContent, get("high").textContent] = names[colour];
    draw();
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    get("theme").setAttribute("aria-pressed", String(theme === "dark"));
  }

  const jump = (pass) => { pause(); show(pass); moved(now); };
  const follow = (pass) => { pause(); show(pass); };
  get("first").addEventListener("click", () => jump(-1));
  get("back").addEventListener("click", () => jump(now - 1));
  get("play").addEventListener("click", play);
  get("forward").addEventListener("click", () => jump(now + 1));
  get("last").addEventListener("click", () => jump(passes - 1));
  get("pass").addEventListener("input", (event) => jump(Number(event.target.value)));
  get("colour").addEventListener("change", (event) => { colour = event.target.value; paint(); });
  get("speed").addEventListener("change", () => { if (timer) { pause(); play(); } });
  get("repeats").addEventListener("change", (event) => {
    get("canvas").classList.toggle("repeats", event.target.checked);
    get("sign-repeats").hidden = !event.target.checked;
  });
  get("drafts").addEventListener("change", (event) => {
    get("canvas").classList.toggle("drafts", event.target.checked);
    get("sign-drafts").hidden = !event.target.checked;
  });
  get("theme").addEventListener("click", () => setTheme(get("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark"));
  get("canvas").addEventListener("pointerover", (event) => {
    if (event.target.dataset.position !== undefined) choose(Number(event.target.dataset.position));
  });
  get("editing").addEventListener("click", () => edit(!edited));
  get("mask-all").addEventListener("click", () => { edited.fill(data.mask); draw(); });
  get("keep-all").addEventListener("click", () => {
    edited = tokens.map((_, position) => (standing(position) < 0 ? data.mask : standing(position)));
    draw();
  });
  get("go-on").addEventListener("click", () => goOn(data.run, edited));
  get("canvas").addEventListener("click", (event) => {
    if (edited && event.target.dataset.position !== undefined) turn(Number(event.target.dataset.position));
  });
  get("details").addEventListener("click", (event) => {
    if (edited && event.target.dataset.token !== undefined) keep(chosen, Number(event.target.dataset.token));
  });
  get("canvas").addEventListener("focusin", (event) => {
    if (event.target.dataset.position !== undefined) choose(Number(event.target.dataset.position));
  });
  get("canvas").addEventListener("keydown", (event) => {
    if (edited && event.key === "Enter") return turn(chosen);
    const to = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined || !tokens[to] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    tokens[to].focus();
  });
  function onKey(event) {
    const own = event.composedPath()[0].closest("input, select, button, summary");
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (own && (event.key === " " || own.matches("select, input[type=range]"))) return;
    const move = { ArrowLeft: () => jump(now - 1), ArrowRight: () => jump(now + 1), Home: () => jump(-1), End: () => jump(passes - 1), " ": play }[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }

  get("image").addEventListener("load", ({ target }) => // its shape bounds its height: a tall picture is narrow
    target.parentNode.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight));

  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (first) load(first);
  return { load, follow, onKey };
}
