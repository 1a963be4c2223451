// The switch between the versions that are served.
import { versions } from "./service.js";

export class Models {
  #select;

  constructor(select) {
    this.#select = select;
    // Who comes back to the page may find other versions.
    addEventListener("focus", () => this.refresh());
  }

  /** The version that is asked, or "" where the service is to choose. */
  get version() {
    return this.#select.value;
  }

  onChange(act) {
    this.#select.addEventListener("change", act);
  }

  /** Forget which version was chosen. */
  reset() {
    this.#select.value = "";
  }

  /** Offer this version, which has answered, as well. */
  meet(version) {
    if (![...this.#select.options].some((option) => option.value === String(version))) this.refresh();
  }

  /** Offer what is served now. */
  async refresh() {
    const served = await versions().catch(() => null);
    if (!served) return;
    const chosen = this.version;
    const options = served.map(({ version, labels }) => new Option([version, ...labels].join(" · "), version));
    this.#select.replaceChildren(new Option("Default", ""), ...options);
    this.#select.value = options.some((option) => option.value === chosen) ? chosen : "";
  }
}
