//! What has happened to a pool: a bounded log.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// Changes that are kept; older ones are forgotten.
pub const KEPT: usize = 1024;

/// Names that one change lists; of more, only how many there were.
const NAMED: usize = 8;

/// What kind of change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Models joined.
    Add,
    /// A model left.
    Remove,
    /// A model's cost changed.
    Cost,
    /// A model's profile changed.
    Profile,
    /// A model may be chosen again.
    Enable,
    /// A model may not be chosen for now.
    Disable,
    /// What is known of a model changed.
    Metadata,
    /// What is known of the tokens that models take changed.
    Usage,
    /// Everything was replaced by another router's.
    Replace,
}

impl Action {
    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Cost => "cost",
            Self::Profile => "profile",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Metadata => "metadata",
            Self::Usage => "usage",
            Self::Replace => "replace",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Version that the change made.
    pub version: u64,
    /// When, in seconds since 1970.
    pub time: f64,
    /// What kind of change.
    pub action: Action,
    /// The models concerned: the first few names.
    pub models: Vec<String>,
    /// How many models were concerned.
    pub count: usize,
}

/// The latest changes, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log(VecDeque<Change>);

impl Log {
    /// Notes a change made now.
    pub fn note(&mut self, version: u64, action: Action, models: &[&str]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Change {
            version,
            time: now.map_or(0.0, |t| t.as_secs_f64()),
            action,
            models: models.iter().take(NAMED).map(ToString::to_string).collect(),
            count: models.len(),
        });
    }

    /// The changes that made versions above `version`, oldest first.
    pub fn since(&self, version: u64) -> Vec<Change> {
        let newer = self.0.iter().filter(|change| change.version > version);
        newer.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_keeps_the_latest() {
        let mut log = Log::default();
        for version in 1..=KEPT as u64 + 5 {
            log.note(version, Action::Cost, &["m"]);
        }
        assert_eq!(log.since(0).len(), KEPT);
        assert_eq!(log.since(0)[0].version, 6);
        assert_eq!(log.since(KEPT as u64 + 4).len(), 1);
    }

    #[test]
    fn a_change_of_many_models_names_a_few() {
        let names: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut log = Log::default();
        log.note(1, Action::Add, &names);
        let change = &log.since(0)[0];
        assert_eq!((change.models.len(), change.count), (NAMED, 100));
    }
}
