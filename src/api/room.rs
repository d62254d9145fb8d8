//! How much of callers' pictures the server holds at once: bytes that are taken while a body arrives and given back
//! when its request has been answered.

use super::error::ApiResult;
use crate::error::{Error, ErrorKind};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes for which one permit of the semaphore stands.
const UNIT: usize = 1024;

/// The room for all requests together.
#[derive(Debug, Clone)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    /// All of it, in bytes.
    bytes: usize,
}

/// What one request takes of the room; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Hold {
    room: Room,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that it was asked to hold.
    bytes: usize,
}

impl Room {
    /// Room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), bytes }
    }

    /// A hold on nothing yet.
    pub fn hold(&self) -> Hold {
        Hold { room: self.clone(), permit: None, bytes: 0 }
    }
}

impl Hold {
    /// Takes room for `bytes` more. It is not waited for: requests that wait for one another's room while they keep
    /// their own would wait for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if there is too little left.
    pub fn grow(&mut self, bytes: usize) -> ApiResult<()> {
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.bytes = self.bytes.saturating_add(bytes);
        let more = self.bytes.div_ceil(UNIT).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let permits = u32::try_from(more).ok();
        let taken = permits.and_then(|more| Arc::clone(&self.room.units).try_acquire_many_owned(more).ok());
        let Some(taken) = taken else { return Err(self.room.full().into()) };
        match &mut self.permit {
            Some(permit) => permit.merge(taken),
            none => *none = Some(taken),
        }
        Ok(())
    }

    /// Gives all of it back and takes room for `bytes` in its place.
    ///
    /// # Errors
    /// As [`Hold::grow`].
    pub fn become_of(&mut self, bytes: usize) -> ApiResult<()> {
        self.permit = None;
        self.bytes = 0;
        self.grow(bytes)
    }
}

impl Room {
    fn full(&self) -> Error {
        let mib = self.bytes >> 20;
        let message =
            format!("the server holds as much of callers' pictures as it may, {mib} MiB; try again");
        Error::new(ErrorKind::Unavailable, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_as_a_request_grows_and_given_back_when_it_ends() {
        let room = Room::new(10 * UNIT);
        let mut first = room.hold();
        (0..6 * UNIT).step_by(100).for_each(|_| first.grow(100).unwrap());
        let mut second = room.hold();
        assert!(second.grow(4 * UNIT).is_err(), "parts of a unit count as a whole one");
        let mut third = room.hold();
        third.grow(3 * UNIT).unwrap();
        assert!(third.grow(UNIT).is_err());
        drop(first);
        third.grow(6 * UNIT).unwrap();
        assert!(room.hold().grow(UNIT).is_err());
        third.become_of(1).unwrap();
        assert!(room.hold().grow(9 * UNIT).is_ok());
    }

    #[test]
    fn more_than_all_of_it_is_refused_and_says_how_much_there_is() {
        let refused = Room::new(5 << 20).hold().grow(usize::MAX).unwrap_err();
        assert!(refused.to_string().contains("5 MiB"), "{refused}");
    }
}
