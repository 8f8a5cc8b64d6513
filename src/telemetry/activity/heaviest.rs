//! Which counts stay where only so many can.

/// Tells of each of `counts`, one after the other, whether it is among the `most` largest. Of those that equal the least of
/// these some stay: many that count the same must not leave an empty list.
pub fn among_heaviest(mut counts: Vec<u64>, most: usize) -> impl FnMut(u64) -> bool {
    counts.sort_unstable_by(|one, other| other.cmp(one));
    counts.truncate(most);
    let least = counts.last().copied().unwrap_or_default();
    let mut ties = counts.iter().filter(|count| **count == least).count();
    move |count| {
        let is_tie = count == least && ties > 0;
        ties -= usize::from(is_tie);
        count > least || is_tie
    }
}
