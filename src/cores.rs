//! How many cores and how much memory this process may really use: its affinity mask and the limits
//! of its control groups, not what the host has.
//!
//! Invariant: at least one core. What cannot be read limits nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the kernel shows processes and control groups.
const ROOT: &str = "/";

/// Counts the cores that this process may use: the smaller of its affinity mask and the tightest
/// CPU quota above it, rounded up.
pub fn usable() -> usize {
    let cores = affinity().unwrap_or(usize::MAX).min(quota(Path::new(ROOT)).unwrap_or(usize::MAX));
    if cores == usize::MAX { 1 } else { cores.max(1) }
}

/// The cores that the scheduler may put this process on.
fn affinity() -> Option<usize> {
    // The kernel refuses the fixed-size mask on hosts of more than 1,024 CPUs: ask the library then.
    let counted = rustix::thread::sched_getaffinity(None).map(|set| set.count() as usize);
    counted.ok().or_else(|| std::thread::available_parallelism().ok().map(usize::from))
}

/// The most memory that this process may hold before the kernel ends it, in bytes: the tightest limit
/// of its control groups; `None` where there is none.
pub fn memory() -> Option<u64> {
    memory_limit(Path::new(ROOT))
}

/// The tightest quota on the way from this process's control groups up to their roots, in whole
/// cores, rounded up. `root` stands for `/`.
fn quota(root: &Path) -> Option<usize> {
    tightest(root, "cpu", |dir, version| read_quota(dir, version).ok().flatten().map(cores_of))
}

/// The tightest memory limit on the same way.
fn memory_limit(root: &Path) -> Option<u64> {
    tightest(root, "memory", |dir, version| {
        let file = match version {
            Hierarchy::V1 => "memory.limit_in_bytes",
            Hierarchy::V2 => "memory.max",
        };
        // Version 1 says "none" with a number near the largest.
        let limit = fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()?;
        Some(limit).filter(|limit| *limit < 1 << 60)
    })
}

/// The smallest limit that `read` finds in the groups of `controller` that this process is in.
fn tightest<T: Ord>(
    root: &Path,
    controller: &str,
    read: impl Fn(&Path, Hierarchy) -> Option<T>,
) -> Option<T> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let groups = parse_groups(&groups, controller);
    let limits = parse_mounts(&mounts, controller).into_iter().flat_map(|mount| {
        let group = groups.iter().find(|group| group.version == mount.version);
        let dirs = group.map(|group| walk(root, &mount, &group.path)).unwrap_or_default();
        dirs.into_iter().filter_map(|dir| read(&dir, mount.version)).collect::<Vec<_>>()
    });
    limits.min()
}

/// Whole cores that hold `quota` cores of CPU time.
fn cores_of(quota: f64) -> usize {
    quota.ceil().max(1.0) as usize
}

/// The folders of a group and of every group above it.
fn walk(root: &Path, mount: &Mount, group: &Path) -> Vec<PathBuf> {
    // In a container, the mount may show only the part of the tree below `mount.shown`.
    let inside = group.strip_prefix(&mount.shown).unwrap_or_else(|_| Path::new(""));
    let top = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    inside.ancestors().map(|part| top.join(part)).collect()
}

fn read_quota(dir: &Path, version: Hierarchy) -> io::Result<Option<f64>> {
    match version {
        Hierarchy::V2 => Ok(parse_cpu_max(&fs::read_to_string(dir.join("cpu.max"))?)),
        Hierarchy::V1 => {
            let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us"))?;
            let period = fs::read_to_string(dir.join("cpu.cfs_period_us"))?;
            Ok(parse_cfs(&quota, &period))
        }
    }
}

/// The two generations of control groups; a host may have both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    V1,
    V2,
}

/// A line of `/proc/self/cgroup` that bears on a controller.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Hierarchy,
    path: PathBuf,
}

/// Reads `/proc/self/cgroup`: `0::/path` for version 2, `4:cpu,cpuacct:/path` for version 1.
fn parse_groups(text: &str, controller: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let version = match (id, controllers) {
            ("0", "") => Hierarchy::V2,
            (_, controllers) if controllers.split(',').any(|name| name == controller) => Hierarchy::V1,
            _ => return None,
        };
        Some(Group { version, path: path.into() })
    };
    text.lines().filter_map(group).collect()
}

/// Where a hierarchy is mounted, and which part of it the mount shows.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Hierarchy,
    shown: PathBuf,
    point: PathBuf,
}

/// Reads `/proc/self/mountinfo`: `31 23 0:28 SHOWN POINT OPTIONS ... - TYPE SOURCE SUPER_OPTIONS`.
fn parse_mounts(text: &str, controller: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (shown, point) = (place.next()?.into(), place.next()?.into());
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Hierarchy::V2,
            ("cgroup", options) if options.split(',').any(|name| name == controller) => Hierarchy::V1,
            _ => return None,
        };
        Some(Mount { version, shown, point })
    };
    text.lines().filter_map(mount).collect()
}

/// Reads version 2's `cpu.max`, `QUOTA PERIOD` in microseconds, as cores; `None` for `max`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace();
    let quota: f64 = parts.next()?.parse().ok()?;
    ratio(quota, parts.next()?.parse().ok()?)
}

/// Reads version 1's quota and period, in microseconds, as cores; `None` for the quota -1.
fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    ratio(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "26 20 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
";

    /// A root with `/proc/self` and the given files.
    fn root(groups: &str, mounts: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let all = [("proc/self/cgroup", groups), ("proc/self/mountinfo", mounts)];
        for (path, text) in all.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_quota_of_version_2_is_rounded_up() {
        let root = root("0::/\n", V2, &[("sys/fs/cgroup/cpu.max", "150000 100000\n")]);
        assert_eq!(quota(root.path()), Some(2));
    }

    #[test]
    fn the_tightest_quota_on_the_way_up_holds() {
        let files = [
            ("sys/fs/cgroup/a/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n"),
        ];
        assert_eq!(quota(root("0::/a/b/c\n", V2, &files).path()), Some(3));
        assert_eq!(quota(root("0::/a/b/c\n", V2, &files[1..2]).path()), None);
    }

    #[test]
    fn a_quota_of_version_1_is_found_below_its_own_mount() {
        let groups = "5:cpuset:/\n4:cpu,cpuacct:/docker/f00\n0::/\n";
        let files = [
            ("sys/fs/cgroup/cpu,cpuacct/docker/f00/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/f00/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(root(groups, V1, &files).path()), Some(1));
    }

    #[test]
    fn a_container_that_sees_only_its_own_part_of_the_tree_finds_its_quota() {
        let mounts = V1.replace("0:29 / /sys", "0:29 /docker/f00 /sys");
        let files = [
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let root = root("4:cpu,cpuacct:/docker/f00\n", &mounts, &files);
        assert_eq!(quota(root.path()), Some(4));
    }

    #[test]
    fn a_process_whose_group_lies_outside_the_mount_still_heeds_the_mounts_top() {
        let root = root("0::/../../elsewhere\n", V2, &[("sys/fs/cgroup/cpu.max", "200000 100000\n")]);
        assert_eq!(quota(root.path()), Some(2));
    }

    #[test]
    fn what_is_missing_or_nonsense_limits_nothing() {
        assert_eq!(quota(tempfile::tempdir().unwrap().path()), None);
        assert_eq!(quota(root("nonsense\n\n7\n", "nonsense - x\n", &[]).path()), None);
        for text in ["max 100000", "", "0 100000", "100000 0", "100000", "-1 100000", "x y"] {
            assert_eq!(parse_cpu_max(text), None, "{text:?}");
        }
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
    }

    #[test]
    fn the_tightest_memory_limit_holds() {
        let v2 = |files: &[(&str, &str)]| memory_limit(root("0::/a/b\n", V2, files).path());
        let outer = ("sys/fs/cgroup/a/memory.max", "134217728\n");
        assert_eq!(v2(&[outer, ("sys/fs/cgroup/a/b/memory.max", "max\n")]), Some(128 << 20));
        assert_eq!(v2(&[outer, ("sys/fs/cgroup/a/b/memory.max", "1000\n")]), Some(1000));
        assert_eq!(v2(&[]), None);
        let mounts = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let v1 = |limit: &str| {
            let files = [("sys/fs/cgroup/memory/memory.limit_in_bytes", limit)];
            memory_limit(root("9:memory:/\n", mounts, &files).path())
        };
        assert_eq!(v1("268435456\n"), Some(256 << 20));
        assert_eq!(v1("9223372036854771712\n"), None);
    }

    #[test]
    fn there_is_always_a_core() {
        assert!(usable() >= 1);
        assert_eq!(cores_of(0.05), 1);
        assert_eq!(cores_of(2.0), 2);
    }
}
