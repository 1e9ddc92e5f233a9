//! Server-sent events, read as they arrive (HTML Living Standard §9.2.6). An event is bounded in bytes.

/// What an event holds that the protocol uses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct SseEvent {
    /// `data`, its lines joined.
    pub(super) data: Vec<u8>,
    /// `event`; none is `message`.
    pub(super) kind: Vec<u8>,
}

/// An event is longer than the bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooLong;

/// Reads one stream.
#[derive(Debug)]
pub(super) struct SseReader {
    bytes_max: usize,
    /// The line that is being read.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, whose line feed is still to come.
    after_return: bool,
    is_first_line: bool,
    event: SseEvent,
    has_data: bool,
    last_id: Option<String>,
    retry_ms: Option<u64>,
}

impl SseReader {
    pub(super) const fn new(bytes_max: usize) -> Self {
        let event = SseEvent { data: Vec::new(), kind: Vec::new() };
        Self {
            bytes_max,
            line: Vec::new(),
            after_return: false,
            is_first_line: true,
            event,
            has_data: false,
            last_id: None,
            retry_ms: None,
        }
    }

    /// The id of the last event that had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the server wants to be left alone before a stream is resumed.
    pub(super) const fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Forgets what was not finished, for the stream's next connection.
    pub(super) fn restart(&mut self) {
        let (last_id, retry_ms) = (self.last_id.take(), self.retry_ms);
        *self = Self { last_id, retry_ms, ..Self::new(self.bytes_max) };
    }

    /// Reads on. Hands over the events that end in these bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() + self.event.data.len() >= self.bytes_max => return Err(TooLong),
                byte => self.line.push(*byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        }
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let colon = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
        let (name, value) = text.split_at_checked(colon).unwrap_or((text, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value);
        self.field(name, value.strip_prefix(b" ").unwrap_or(value));
        None
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            b"event" => self.event.kind = value.to_vec(),
            b"id" if !value.contains(&0) => {
                self.last_id = String::from_utf8(value.to_vec()).ok().filter(|id| !id.is_empty());
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(reader: &mut SseReader, text: &str) -> Vec<String> {
        let events = reader.read(text.as_bytes()).unwrap();
        events.into_iter().map(|event| String::from_utf8(event.data).unwrap()).collect()
    }

    #[test]
    fn an_event_is_read_whatever_ends_its_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let text = "\u{feff}: hello\n\nid: 7\nretry: 250\nevent: message\ndata: {\ndata:  1}\n\ndata\n\n";
            let mut reader = SseReader::new(100);
            assert_eq!(texts(&mut reader, &text.replace('\n', end)), ["{\n 1}", ""], "{end:?}");
            assert_eq!((reader.last_id(), reader.retry_ms()), (Some("7"), Some(250)));
        }
    }

    #[test]
    fn an_event_without_data_is_none_but_its_id_counts() {
        let mut reader = SseReader::new(100);
        assert!(texts(&mut reader, "id: a\nevent: x\n\nid: b\0c\n\nretry: 1x\n\ndata: 1\n").is_empty());
        assert_eq!((reader.last_id(), reader.retry_ms()), (Some("a"), None));
        let events = reader.read(b"\n").unwrap();
        assert_eq!(events, [SseEvent { data: b"1".to_vec(), kind: Vec::new() }]);
    }

    #[test]
    fn an_event_may_be_as_long_as_the_bound_and_no_longer() {
        let mut reader = SseReader::new(16);
        assert_eq!(texts(&mut reader, "data: 0123456789\n\n"), ["0123456789"]);
        assert_eq!(reader.read(b"data: 01234567890"), Err(TooLong));
        let mut reader = SseReader::new(16);
        assert_eq!(reader.read(&b"data: 01\n".repeat(9)), Err(TooLong));
        let mut reader = SseReader::new(16);
        assert_eq!(reader.read(&b"data\n".repeat(99)), Err(TooLong));
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_bytes_arrive(
            text in "([a-z]{0,3}(: |:)?[a-z]{0,3}|data: [a-z]{0,4})?(\n|\r|\r\n){1,3}(data:x\r\n\r\n){0,2}",
            cut in 0_usize..20,
        ) {
            let mut whole = SseReader::new(1000);
            let expected = whole.read(text.as_bytes()).unwrap();
            let mut parts = SseReader::new(1000);
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let mut events = parts.read(head).unwrap();
            events.extend(parts.read(tail).unwrap());
            prop_assert_eq!(events, expected);
        }
    }
}
