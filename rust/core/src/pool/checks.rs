//! What names, costs and profiles must be.

use crate::error::{Error, Result};

/// Bytes of a model's name at most.
pub const LONGEST_NAME: usize = 512;

/// The name, alone or before a colon and a policy, by which a chat asks to be routed: no model's.
pub const RESERVED: &str = "uniroute";

/// Fails on the first value that is not finite; `place` gives the cluster and the model of a value.
pub(super) fn check_finite(
    profiles: &[f32],
    names: &[&str],
    place: impl Fn(usize) -> (usize, usize),
) -> Result<()> {
    // All at once first: a search for the culprit stops the compiler from using vectors.
    if profiles.iter().fold(true, |fine, v| fine & v.is_finite()) {
        return Ok(());
    }
    let culprit = (profiles.iter().enumerate()).find(|(_, v)| !v.is_finite());
    culprit.map_or(Ok(()), |(at, value)| {
        let (cluster, model) = place(at);
        let problem = format!("{value} for model {:?} in cluster {cluster}", names[model]);
        Err(Error::invalid(
            "profiles",
            problem,
            "finite predicted losses",
        ))
    })
}

pub(super) fn check_costs(argument: &'static str, costs: &[f64]) -> Result<()> {
    match costs.iter().position(|c| !(c.is_finite() && *c >= 0.0)) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(
            argument,
            format!("{} at index {at}", costs[at]),
            "finite costs, 0 or more",
        )),
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(
            "names",
            "an empty name",
            "a non-empty string for each model",
        ));
    }
    if name.len() > LONGEST_NAME {
        let problem = format!("a name of {} bytes", name.len());
        return Err(Error::invalid(
            "names",
            problem,
            format!("at most {LONGEST_NAME} each"),
        ));
    }
    if name == RESERVED
        || name
            .strip_prefix(RESERVED)
            .is_some_and(|rest| rest.starts_with(':'))
    {
        let problem = format!("{name:?}, by which a chat asks to be routed");
        let expected = format!("names other than {RESERVED:?} and \"{RESERVED}:...\"");
        return Err(Error::invalid("names", problem, expected));
    }
    if name.contains(is_unprintable) {
        let problem = format!("{name:?} has a control or invisible character");
        return Err(Error::invalid(
            "names",
            problem,
            "names that can be printed",
        ));
    }
    Ok(())
}

/// Whether a character is a control or cannot be seen: line separators, joiners, fillers, selectors of
/// variants, and those that turn the direction of writing. Blanks are not meant.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
