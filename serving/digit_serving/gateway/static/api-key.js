// API key: the user types it in a dialog, and the tab's session storage keeps it.

const STORAGE_KEY = "digits-key";

let openPrompt = null;

/** Return the stored key, or null. */
export function storedKey() {
  return sessionStorage.getItem(STORAGE_KEY);
}

/** Ask the user for a key and store it. Resolves to true if one was given. Concurrent callers share one dialog. */
export function promptForKey() {
  return (openPrompt ??= showDialog().finally(() => (openPrompt = null)));
}

function showDialog() {
  const dialog = document.querySelector("#key");
  const input = dialog.querySelector("input");
  dialog.returnValue = "";
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue) sessionStorage.setItem(STORAGE_KEY, input.value);
        resolve(Boolean(dialog.returnValue));
      },
      { once: true },
    );
  });
}
