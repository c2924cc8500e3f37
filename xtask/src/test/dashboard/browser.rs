//! A headless browser, told what to do through its debugging pipe: messages in JSON, each ended by a zero byte.
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use serde_json::{Value, json};

/// The browser has the pipe as descriptors 3 and 4; the shell hands it its own input and output as these.
const SHELL: &str = "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";
/// How it is started: nothing on a screen, nothing in the background, no request of its own.
const OPTIONS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];
/// How long an answer may take on a busy host.
const ANSWER: Duration = Duration::from_secs(90);
/// How long the browser has to end.
const END: Duration = Duration::from_secs(10);
/// How often that is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A browser with one page.
pub struct Browser {
    child: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// Errors that the page or the browser told of, and requests to anything but files.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts `program` with its profile in `folder` and an empty page.
    pub fn start(program: &Path, folder: &Path) -> Result<Browser> {
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "sh"]).arg(program).args(OPTIONS);
        command.arg(format!("--user-data-dir={}", folder.display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting the browser")?;
        let (pipe, output) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(value) = serde_json::from_slice(&message) else { continue };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut browser = Browser { child, pipe, messages, session: None, number: 0, complaints: Vec::new() };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.number += 1;
        let number = self.number;
        let mut message = json!({"id": number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.pipe.write_all(format!("{message}\0").as_bytes()).context("telling the browser")?;
        let answer = self.wait(|message| message["id"] == number)?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            match self.messages.recv_timeout(ANSWER.saturating_sub(start.elapsed())) {
                Ok(message) if wanted(&message) => return Ok(message),
                Ok(message) => self.note(&message),
                Err(RecvTimeoutError::Timeout) => bail!("the browser does not answer"),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser ended by itself"),
            }
        }
    }

    /// Keeps what a test must not see.
    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string())
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"]["text"].to_string());
            }
            Some("Network.requestWillBeSent") => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                if !["file:", "data:", "about:"].iter().any(|own| url.starts_with(own)) {
                    self.complaints.push(format!("a request for {url}"));
                }
            }
            _ => {}
        }
    }

    /// Opens the file `path` and waits until it is loaded.
    pub fn open(&mut self, path: &Path) -> Result<()> {
        let answer = self.ask("Page.navigate", json!({"url": format!("file://{}", path.display())}))?;
        if let Some(error) = answer.get("errorText") {
            bail!("{}: {error}", path.display());
        }
        self.wait(|message| message["method"] == "Page.loadEventFired").map(drop)
    }

    /// The value of a JavaScript expression in the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", parameters)?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(anyhow!("{expression}: {details}")),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Gives the page another width and colour scheme, and lets it draw itself anew.
    pub fn appear(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", size)?;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", media)?;
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")?;
        Ok(())
    }

    /// Moves the pointer.
    pub fn point_at(&mut self, x: f64, y: f64) -> Result<()> {
        self.ask("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y})).map(drop)
    }

    /// Keeps a picture of the whole page in `path`.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let answer =
            self.ask("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}))?;
        let text = answer["data"].as_str().context("no picture came")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).context("the picture")?;
        std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        // Whatever this fails with, the browser is killed below.
        let _ = self.ask("Browser.close", json!({}));
        let start = Instant::now();
        while start.elapsed() < END {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(TICK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
