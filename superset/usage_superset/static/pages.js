// The name of what a page is about, in its heading and in the browser's title; whom to phone there, for who may see
// contacts. Superset keeps the filters of a page on
// the server: whenever it has told the server of other ones, the server is asked which account or application they name.
(() => {
  "use strict";
  const page = /^\/superset\/dashboard\/(account|application)\//;
  const kept = "/filter_state";
  const titles = {account: "{page.account.title}", application: "{page.application.title}"};
  let asked = 0;

  const link = (text, href) => {
    const made = document.createElement("a");
    made.textContent = text;
    made.href = href;
    return made;
  };

  // who answers the phone there, as text: names come from data
  const contactLine = (account, contact) => {
    const line = document.createElement("p");
    line.className = "usage-contact";
    line.append("{script.primary_contact} ", link(contact.name, `/contacts/${encodeURIComponent(account)}`));
    if (contact.role) line.append(`, ${contact.role}`);
    if (contact.phone) line.append(", ", link(contact.phone, `tel:${contact.phone.replace(/[^0-9+]/g, "")}`));
    if (contact.email) line.append(", ", link(contact.email, `mailto:${encodeURIComponent(contact.email).replace("%40", "@")}`));
    return line;
  };

  const show = (title, contact) => {
    const heading = document.querySelector("#MARKDOWN-frame h1");
    if (!heading) {
      setTimeout(() => show(title, contact), 300);
      return;
    }
    heading.textContent = title;
    document.title = title;
    heading.parentElement.querySelectorAll(".usage-contact").forEach((line) => line.remove());
    if (contact && contact.name) heading.after(contactLine(title, contact));
  };

  const ask = async () => {
    const found = page.exec(location.pathname);
    if (!found) return;
    const number = ++asked;
    const answer = await fetch("/page-names/", {headers: {Accept: "application/json"}});
    if (!answer.ok || number !== asked) return;
    const named = await answer.json();
    const names = named[found[1]] || [];
    const contact = found[1] === "account" ? named.contact : null;
    show(names.length === 1 ? names[0] : titles[found[1]], contact);
  };

  new PerformanceObserver((list) => {
    if (list.getEntries().some((entry) => new URL(entry.name).pathname.includes(kept))) setTimeout(ask, 200);
  }).observe({type: "resource", buffered: true});
})();

// Superset's own widgets, for who does not see them or uses no mouse; and what would stand in the console of every page.
(() => {
  "use strict";
  // a picture of another host counts who runs Superset: the policy of pages refuses it, and the console says so
  const set = Element.prototype.setAttribute;
  HTMLImageElement.prototype.setAttribute = function (name, value) {
    if (name === "src" && String(value).includes("gateway.scarf.sh")) return;
    set.call(this, name, value);
  };

  if (!location.pathname.startsWith("/superset/dashboard/")) return;

  // past menu, filters and tiles, to the first row of the table that the page is about
  const skip = () => {
    const seen = [...document.querySelectorAll(".superset-chart-table tbody")].filter((rows) => rows.offsetParent &&
      rows.querySelector("a") && !rows.closest('[data-test-chart-name="{chart.state_of_the_data.title}"]'));
    const target = seen[0] || document.querySelector(".grid-content");
    if (!target) return;
    target.tabIndex = -1;
    target.focus();
  };

  const lead = () => {
    const link = document.createElement("a");
    link.className = "usage-skip";
    link.href = "#app";
    link.textContent = "{script.skip}";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      skip();
    });
    document.body.prepend(link);
  };

  // a description counts where the element says what it is
  const mend = () => {
    for (const chart of document.querySelectorAll(".dashboard-chart[aria-label]:not([role])")) {
      chart.setAttribute("role", "group");
    }
    for (const button of document.querySelectorAll(".ant-tabs-nav-more:not([aria-label])")) {
      button.setAttribute("aria-label", "{script.more_tabs}");
    }
  };

  let waiting = 0;
  document.addEventListener("DOMContentLoaded", () => {
    lead();
    new MutationObserver(() => {
      waiting ||= setTimeout(() => {
        waiting = 0;
        mend();
      }, 200);
    }).observe(document.body, {childList: true, subtree: true});
  });
})();

// Superset draws a chart as wide as its place in the row says, on a telephone too: there it gets the row, a tile half.
(() => {
  "use strict";
  const tile = 20;
  const widened = (places) => {
    for (const place of Object.values(places)) {
      if (place.type === "COLUMN") place.meta.width = 12;
      if (place.type === "CHART") place.meta.width = place.meta.height <= tile ? 6 : 12;
    }
    return places;
  };

  if (!location.pathname.startsWith("/superset/dashboard/") || !matchMedia("(max-width: 767px)").matches) return;
  const read = window.fetch;
  window.fetch = async (...given) => {
    const answer = await read(...given);
    const asked = new URL(given[0].url || given[0], location.href).pathname;
    if (!answer.ok || !/^\/api\/v1\/dashboard\/[^/]+$/.test(asked)) return answer;
    const page = await answer.clone().json();
    if (!page.result || !page.result.position_json) return answer;
    page.result.position_json = JSON.stringify(widened(JSON.parse(page.result.position_json)));
    return new Response(JSON.stringify(page), {status: answer.status, headers: answer.headers});
  };
})();
