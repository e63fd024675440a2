//! Cycles among services.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_model::ServiceName;

type Needs<'a> = BTreeMap<&'a ServiceName, &'a BTreeSet<ServiceName>>;

/// Numbers the strongly connected components (Tarjan 1972, without recursion): who shares a number is on one cycle.
pub(crate) fn groups(needs: &Needs<'_>) -> HashMap<ServiceName, usize> {
    let names: Vec<&ServiceName> = needs.keys().copied().collect();
    let index_of: HashMap<&ServiceName, usize> = names.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let edges: Vec<Vec<usize>> =
        needs.values().map(|set| set.iter().filter_map(|n| index_of.get(n).copied()).collect()).collect();
    let mut walk = Tarjan {
        edges: &edges,
        seen: vec![None; names.len()],
        low: vec![0; names.len()],
        on_stack: vec![false; names.len()],
        stack: Vec::new(),
        group: vec![0; names.len()],
        groups: 0,
        next: 0,
    };
    for start in 0..names.len() {
        if walk.seen[start].is_none() {
            walk.from(start);
        }
    }
    names.iter().enumerate().map(|(i, n)| ((*n).clone(), walk.group[i])).collect()
}

struct Tarjan<'a> {
    edges: &'a [Vec<usize>],
    seen: Vec<Option<usize>>,
    low: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    group: Vec<usize>,
    groups: usize,
    next: usize,
}

impl Tarjan<'_> {
    fn enter(&mut self, node: usize) {
        self.seen[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn from(&mut self, start: usize) {
        let mut work = vec![(start, 0)];
        self.enter(start);
        while let Some((node, edge)) = work.last_mut() {
            let node = *node;
            if let Some(next) = self.edges[node].get(*edge).copied() {
                *edge += 1;
                match self.seen[next] {
                    None => {
                        self.enter(next);
                        work.push((next, 0));
                    }
                    Some(index) if self.on_stack[next] => self.low[node] = self.low[node].min(index),
                    Some(_) => {}
                }
                continue;
            }
            work.pop();
            if let Some((parent, _)) = work.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if Some(self.low[node]) == self.seen[node] {
                self.close(node);
            }
        }
    }

    fn close(&mut self, root: usize) {
        while let Some(node) = self.stack.pop() {
            self.on_stack[node] = false;
            self.group[node] = self.groups;
            if node == root {
                break;
            }
        }
        self.groups += 1;
    }
}

/// Returns one cycle of each component that has any, beginning with its first name.
pub(crate) fn cycles(needs: &Needs<'_>) -> Vec<Vec<ServiceName>> {
    let group = groups(needs);
    let mut done = BTreeSet::new();
    let mut out = Vec::new();
    for (name, needed) in needs {
        let own = group.get(*name);
        let circular = needed.iter().any(|n| n == *name || group.get(n) == own && own.is_some());
        if circular && done.insert(own) {
            out.push(walk(needs, &group, name));
        }
    }
    out
}

/// Follows edges within a component until a name comes again.
fn walk(needs: &Needs<'_>, group: &HashMap<ServiceName, usize>, start: &ServiceName) -> Vec<ServiceName> {
    let mut path: Vec<ServiceName> = vec![start.clone()];
    let mut at: HashMap<ServiceName, usize> = HashMap::from([(start.clone(), 0)]);
    loop {
        let last = &path[path.len() - 1];
        let next = needs.get(last).and_then(|set| set.iter().find(|n| group.get(*n) == group.get(start)));
        let Some(next) = next else { return path };
        if let Some(from) = at.get(next) {
            return path.split_off(*from);
        }
        at.insert(next.clone(), path.len());
        path.push(next.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(pairs: &[(&str, &[&str])]) -> BTreeMap<ServiceName, BTreeSet<ServiceName>> {
        let name = |n: &str| ServiceName::new(n).unwrap();
        pairs.iter().map(|(n, set)| (name(n), set.iter().map(|s| name(s)).collect())).collect()
    }

    #[test]
    fn a_cycle_is_found_and_a_chain_is_none() {
        let graph = needs(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"]), ("d", &["a"]), ("e", &["e"])]);
        let refs = graph.iter().collect();
        let found = cycles(&refs);
        let names: Vec<Vec<&str>> =
            found.iter().map(|c| c.iter().map(ServiceName::as_str).collect()).collect();
        assert_eq!(names, [vec!["b", "c"], vec!["e"]]);
        let groups = groups(&refs);
        assert_eq!(groups[&ServiceName::new("b").unwrap()], groups[&ServiceName::new("c").unwrap()]);
        assert_ne!(groups[&ServiceName::new("a").unwrap()], groups[&ServiceName::new("b").unwrap()]);
    }
}
