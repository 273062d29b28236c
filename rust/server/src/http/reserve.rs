//! Connections beyond the limit: a few are kept, so that health checks are
//! answered however many others are connected.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Connections that the reserve holds.
pub const PLACES: usize = 64;

/// The places beyond the limit. The oldest that has not sent a whole head makes room for a new one.
#[derive(Clone, Default)]
pub struct Reserve(Arc<Mutex<VecDeque<Arc<Guest>>>>);

/// A connection in the reserve.
#[derive(Default)]
pub struct Guest {
    /// Whether it has sent the whole head of a request.
    heard: AtomicBool,
    leave: Notify,
}

impl Guest {
    /// Says that it has sent the whole head of a request: it stays until it is answered.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Waits until it has to make room.
    pub async fn leave(&self) {
        self.leave.notified().await;
    }
}

/// A place in the reserve, until dropped.
pub struct Place {
    reserve: Reserve,
    pub guest: Arc<Guest>,
}

impl Reserve {
    /// A place, if there is one, or if the oldest that sends nothing makes room.
    pub fn enter(&self) -> Option<Place> {
        let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guests.len() >= PLACES {
            let oldest = guests.iter().position(|guest| !guest.was_heard())?;
            if let Some(guest) = guests.remove(oldest) {
                guest.leave.notify_one();
            }
        }
        let guest = Arc::new(Guest::default());
        guests.push_back(Arc::clone(&guest));
        Some(Place {
            reserve: self.clone(),
            guest,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self
            .reserve
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        guests.retain(|guest| !Arc::ptr_eq(guest, &self.guest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_sends_nothing_makes_room() {
        let reserve = Reserve::default();
        let mut places: Vec<_> = (0..PLACES).map(|_| reserve.enter().unwrap()).collect();
        places[0].guest.heard();
        places.push(reserve.enter().unwrap());
        // Returns at once: the second has been asked to leave.
        places[1].guest.leave().await;
        for place in &places {
            place.guest.heard();
        }
        assert!(reserve.enter().is_none());
        places.pop();
        assert!(reserve.enter().is_some());
    }
}
