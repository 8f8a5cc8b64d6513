//! CPU time of local processes, as the operating system accounts it.

use std::fs;
use std::time::Duration;

use super::BenchError;

/// Ticks per second of the times in `/proc/<pid>/stat`; Linux shows user space 100 on every architecture that it
/// runs on today, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u32 = 100;

/// CPU time that process `pid` has used since it started: user and system, all threads, also those that ended.
///
/// Read from `/proc/<pid>/stat` (proc_pid_stat(5)), fields 14 and 15; resolution 10 ms.
///
/// # Errors
/// When there is no such process, or the system has no `/proc`.
pub fn used(pid: u32) -> Result<Duration, BenchError> {
    let refuse = |reason: String| BenchError::Cpu { pid, reason };
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| refuse(error.to_string()))?;
    ticks(&text)
        .map(|ticks| Duration::from_secs(ticks) / TICKS_PER_SECOND)
        .ok_or_else(|| refuse("its stat has no CPU time".to_owned()))
}

/// CPU time that this thread has used, to the nanosecond.
#[must_use]
pub fn of_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// User and system ticks of a stat line. The command's name (field 2) may hold blanks and parentheses, so fields are
/// counted from its last closing one.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 104 0 1 0 31 11 5 5 20 0 1 0 126185";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (short) S 1"), None);
    }

    #[test]
    fn this_process_is_read_and_a_missing_one_is_an_error() {
        assert!(used(std::process::id()).is_ok());
        assert!(used(u32::MAX).is_err());
    }
}
