//! Server-sent events, as they arrive (WHATWG HTML §9.2.6). What is held of an unfinished one is bounded.

use std::time::Duration;

/// Reads events out of the pieces of a stream.
#[derive(Debug)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    name: Vec<u8>,
    id: Option<String>,
    after_return: bool,
    begun: bool,
    bytes_max: usize,
    /// The id of the last event, which a new stream can go on after.
    pub(super) last_id: Option<String>,
    /// How long the server wants to be left alone before a new stream.
    pub(super) retry: Option<Duration>,
}

/// An event was longer than one may be.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TooLong;

impl Events {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            name: Vec::new(),
            id: None,
            after_return: false,
            begun: false,
            bytes_max,
            last_id: None,
            retry: None,
        }
    }

    /// Takes the next piece, and gives the data of each message that ends in it.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut messages = Vec::new();
        for &byte in piece {
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    messages.extend(self.end_line());
                }
                _ if self.line.len() + self.data.len() >= self.bytes_max => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(messages)
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = match line.strip_prefix("\u{feff}".as_bytes()) {
            Some(rest) if !self.begun => rest,
            _ => &line,
        };
        self.begun = true;
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) =
            (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.name = value.to_vec(),
            b"id" => self.id = String::from_utf8(value.to_vec()).ok().filter(|id| !id.contains('\0')),
            b"retry" => {
                let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            _ => {} // a comment, or a field that is not known
        }
        None
    }

    fn end_event(&mut self) -> Option<Vec<u8>> {
        let (data, name) = (std::mem::take(&mut self.data), std::mem::take(&mut self.name));
        if let Some(id) = self.id.take() {
            self.last_id = Some(id).filter(|id| !id.is_empty());
        }
        // Events without data only say where the stream is.
        let is_message = std::mem::take(&mut self.has_data) && matches!(name.as_slice(), b"" | b"message");
        (is_message && !data.is_empty()).then_some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece: usize) -> (Vec<String>, Events) {
        let mut events = Events::new(100);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            found.extend(events.feed(piece).unwrap());
        }
        (found.into_iter().map(|data| String::from_utf8(data).unwrap()).collect(), events)
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "\u{feff}data: 1\n\n: hello\r\nid: 7\rdata:{\ndata:  }\r\n\r\nevent: message\ndata: 2\n\n\
                    event: other\ndata: no\n\nid: 8\nretry: 250\ndata\n\nretry: soon\n\ndata: unfinished\n";
        for piece in 1..text.len() {
            let (found, events) = read(text, piece);
            assert_eq!(found, ["1", "{\n }", "2"], "{piece}");
            assert_eq!(
                (events.last_id.as_deref(), events.retry),
                (Some("8"), Some(Duration::from_millis(250)))
            );
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_not_held() {
        let mut events = Events::new(100);
        assert_eq!(events.feed(&[b'x'; 101]), Err(TooLong));
        let mut events = Events::new(100);
        let text = format!("data: {}\ndata: {}\n\n", "a".repeat(50), "b".repeat(50));
        assert_eq!(events.feed(text.as_bytes()), Err(TooLong));
        let text = format!("data: {}\n\n", "a".repeat(90)).repeat(9);
        assert_eq!(Events::new(100).feed(text.as_bytes()).unwrap().len(), 9);
    }
}
