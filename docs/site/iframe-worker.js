// A page that is opened from a disk may start no worker: there a hidden frame runs the script of the search instead.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<!doctype html><title>search</title>";
      this.inner = new Promise((done, failed) => {
        this.frame.onload = () => {
          const inner = this.frame.contentWindow;
          const load = from => new Promise((loaded, lost) => {
            const script = inner.document.createElement("script");
            Object.assign(script, { src: from, onload: loaded, onerror: lost });
            inner.document.head.append(script);
          });
          inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
          inner.importScripts = (...urls) => urls.reduce((before, from) => before.then(() => load(from)), Promise.resolve());
          load(url).then(() => done(inner), failed);
        };
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      this.inner.then(inner => inner.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
