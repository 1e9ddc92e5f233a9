//! Follows a log as it grows.

use super::{Found, Frames, LogFolder, Next, ReadError, found};

/// A place in a log that moves on with it, over the ends of segments.
#[derive(Debug)]
pub struct Follower {
    log: LogFolder,
    /// The first record that is wanted.
    from: u64,
    /// The segment that is read, once there is one.
    frames: Option<Frames>,
}

impl Follower {
    pub(super) fn new(log: LogFolder, from: u64) -> Result<Self, ReadError> {
        let mut follower = Self { log, from, frames: None };
        follower.enter()?;
        Ok(follower)
    }

    pub(super) fn at(log: LogFolder, frames: Frames) -> Self {
        Self { log, from: frames.index(), frames: Some(frames) }
    }

    /// The log that is followed.
    #[must_use]
    pub const fn log(&self) -> &LogFolder {
        &self.log
    }

    /// The next record, where it is there already.
    ///
    /// # Errors
    /// When the log is damaged, or cannot be read.
    pub fn poll(&mut self) -> Result<Option<Found>, ReadError> {
        loop {
            if self.frames.is_none() && !self.enter()? {
                return Ok(None);
            }
            if let Some(found) = self.advance()? {
                return Ok(Some(found));
            }
            let next = self.next_segment()?;
            if self.renew()? {
                continue;
            }
            // The segment is looked at again once it is known that another has begun, since its last
            // frames may have been written in between.
            let Some(next) = next else { return Ok(None) };
            if let Some(found) = self.advance()? {
                return Ok(Some(found));
            }
            self.leave_for(next)?;
        }
    }

    /// Reads on in the segment, up to a record that is wanted.
    fn advance(&mut self) -> Result<Option<Found>, ReadError> {
        let Some(frames) = &mut self.frames else { return Ok(None) };
        let segment = frames.first();
        while let Next::Frame(frame) = frames.next()? {
            if frame.index >= self.from
                && let Some(found) = found(segment, frame)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Opens the segment that holds the first wanted record; false where the log has no segment.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let segments = self.log.segments()?;
        let Some(oldest) = segments.first().copied() else { return Ok(false) };
        if self.from < oldest {
            let path = self.log.segment(oldest);
            return Err(ReadError::Missing { path, from: self.from, to: oldest });
        }
        let holder = segments.iter().rev().find(|first| **first <= self.from).copied().unwrap_or(oldest);
        self.frames = Some(self.log.open(holder)?);
        Ok(true)
    }

    /// Goes on in the file that has taken the segment's name, if one has.
    fn renew(&mut self) -> Result<bool, ReadError> {
        self.frames.as_mut().map_or(Ok(false), Frames::renew)
    }

    /// The segment behind the one that is read.
    fn next_segment(&self) -> Result<Option<u64>, ReadError> {
        let current = self.frames.as_ref().map(Frames::first);
        Ok(self.log.segments()?.into_iter().find(|first| Some(*first) > current))
    }

    /// Goes on in the next segment. This one must end with a whole frame, and that one must begin
    /// with the next record.
    fn leave_for(&mut self, next: u64) -> Result<(), ReadError> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        if let Next::Unfinished(damage) = frames.next()? {
            return Err(frames.damaged(damage));
        }
        let index = frames.index();
        if index != next {
            return Err(ReadError::Missing { path: self.log.segment(next), from: index, to: next });
        }
        self.frames = Some(self.log.open(next)?);
        Ok(())
    }
}
