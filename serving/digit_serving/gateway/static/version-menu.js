// Version menu: selects the model version that predicts. Hidden unless several versions are served.
import { listVersions } from "./api.js";

export class VersionMenu {
  #label;
  #select;

  /** `label` contains the select element. */
  constructor(label) {
    this.#label = label;
    this.#select = label.querySelector("select");
    // The versions may have changed while another window had the focus.
    addEventListener("focus", () => this.refresh());
  }

  /** The chosen version, or "" for the service's default. */
  get version() {
    return this.#select.value;
  }

  onChange(listener) {
    this.#select.addEventListener("change", listener);
  }

  /** Choose the default again. */
  reset() {
    this.#select.value = "";
  }

  /** Refresh the menu if it lacks this version. */
  ensure(version) {
    if (![...this.#select.options].some((option) => option.value === String(version))) this.refresh();
  }

  /** Fetch the served versions and list them. */
  async refresh() {
    const served = await listVersions().catch(() => null);
    if (!served) return;
    const chosen = this.version;
    const options = served.map(({ version, labels }) => new Option([version, ...labels].join(" · "), version));
    this.#select.replaceChildren(new Option("Default", ""), ...options);
    this.#select.value = options.some((option) => option.value === chosen) ? chosen : "";
    this.#label.hidden = served.length < 2;
  }
}
