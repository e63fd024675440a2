//! The graph of references: an order to compute in, cycles, and what an environment decides.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::declare::{Declarations, attribute};
use crate::diagnostic::{Problem, Sink};
use crate::functions;
use crate::references::{Found, visit};
use crate::resolve::{Node, Resolver};
use crate::source::Span;
use crate::syntax::{Block, Body, Expr};

/// An edge: what is needed, and the place that refers to it.
type Edges = HashMap<Node, Vec<(Node, Span)>>;

/// The graph, checked.
pub(crate) struct Graph {
    /// Every node after what it needs.
    pub(crate) order: Vec<Node>,
    /// The nodes of cycles: they have no value.
    pub(crate) cyclic: Vec<Node>,
    /// For each node that an environment decides: the step towards the variable, and the place of the reference.
    decided: HashMap<Node, Option<(Node, Span)>>,
}

impl Graph {
    /// Builds the graph. Reports unknown names and functions, and cycles.
    pub(crate) fn build(resolver: &Resolver<'_>, environment_scoped: &[usize], sink: &mut Sink) -> Self {
        let mut edges = Edges::new();
        let mut checks = Edges::new();
        collect(resolver, &mut edges, &mut checks, sink);
        let nodes: Vec<Node> = {
            let mut nodes: Vec<Node> = edges.keys().copied().collect();
            nodes.sort_unstable();
            nodes
        };
        let (order, cycles) = sort(&nodes, &edges);
        for cycle in &cycles {
            sink.push(cycle_problem(resolver.declared, cycle, &edges));
        }
        let decided = decide(environment_scoped, &edges, &checks);
        Self { order, cyclic: cycles.into_iter().flatten().collect(), decided }
    }

    /// Reports references from an expression that may not depend on the environment.
    pub(crate) fn refuse_environment(
        &self,
        resolver: &Resolver<'_>,
        owner: &str,
        expr: &Expr,
        sink: &mut Sink,
    ) {
        visit(expr, &mut |found| {
            let Found::Name { root, span, steps } = found else { return };
            let Ok((target, used)) = resolver.target(root, span, steps) else { return };
            let span = Span { end: steps[..used].last().map_or(span.end, |s| s.span.end), ..span };
            for node in resolver.needs(target) {
                if self.decided.contains_key(&node) {
                    sink.push(self.environment_problem(resolver.declared, owner, node, span));
                    return;
                }
            }
        });
    }

    /// Whether an expression depends on what an environment decides.
    pub(crate) fn is_decided(&self, resolver: &Resolver<'_>, expr: &Expr) -> bool {
        let mut found_one = false;
        visit(expr, &mut |found| {
            let Found::Name { root, span, steps } = found else { return };
            let Ok((target, _)) = resolver.target(root, span, steps) else { return };
            found_one |= resolver.needs(target).iter().any(|n| self.decided.contains_key(n));
        });
        found_one
    }

    fn environment_problem(
        &self,
        declared: &Declarations<'_>,
        owner: &str,
        first: Node,
        span: Span,
    ) -> Problem {
        let mut chain = vec![show(declared, first)];
        let mut labels = Vec::new();
        let mut at = first;
        while let Some(Some((next, place))) = self.decided.get(&at) {
            chain.push(show(declared, *next));
            labels.push((*place, format!("{} depends on {}", show(declared, at), show(declared, *next))));
            at = *next;
        }
        let path = chain.join(" -> ");
        let message = format!("{owner} depends on what an environment decides: {path}");
        let mut problem = Problem::new("environment-in-image", span, message).label("refers to it here");
        for (place, text) in labels {
            problem = problem.also(place, text);
        }
        if let Node::Variable(i) = at {
            problem = problem.also(declared.variables[i].block.header(), "has `scope = \"environment\"`");
        }
        problem.help("a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`")
    }
}

/// Visits every expression of the stack: edges between nodes, and unknown names anywhere.
fn collect(resolver: &Resolver<'_>, edges: &mut Edges, checks: &mut Edges, sink: &mut Sink) {
    let declared = resolver.declared;
    for (i, variable) in declared.variables.iter().enumerate() {
        let node = Node::Variable(i);
        edges.entry(node).or_default();
        for validation in &variable.block.body.blocks {
            for inner in &validation.body.attributes {
                add(resolver, checks, node, &inner.expr, false, sink);
            }
        }
    }
    for (i, local) in declared.locals.iter().enumerate() {
        add(resolver, edges, Node::Local(i), &local.attribute.expr, false, sink);
    }
    for (b, config) in declared.of_kind("config").iter().enumerate() {
        for (k, inner) in config.block.body.attributes.iter().enumerate() {
            let (node, each) = match (config.for_each, &*inner.name) {
                (Some(_), "for_each") => (Node::ConfigMap(b), false),
                (Some(_), _) => (Node::ConfigMap(b), true),
                (None, _) => (Node::ConfigKey(b, k), false),
            };
            add(resolver, edges, node, &inner.expr, each, sink);
        }
    }
    for kind in ["secret", "base", "image", "service", "worker", "job", "volume", "route", "notify"] {
        for (b, block) in declared.of_kind(kind).iter().enumerate() {
            let node = Node::ForEach(kind, b);
            if let Some(for_each) = block.for_each {
                add(resolver, edges, node, for_each, false, sink);
            }
            // The rest of a block is no node: nothing can depend on it. Its names are checked all the same.
            let mut unused = Edges::new();
            check_body(resolver, &mut unused, node, &block.block.body, block.for_each.is_some(), sink);
        }
    }
}

fn check_body(
    resolver: &Resolver<'_>,
    edges: &mut Edges,
    node: Node,
    body: &Body,
    each: bool,
    sink: &mut Sink,
) {
    for inner in body.attributes.iter().filter(|a| &*a.name != "for_each") {
        add(resolver, edges, node, &inner.expr, each, sink);
    }
    for block in &body.blocks {
        check_body(resolver, edges, node, &block.body, each, sink);
    }
}

fn add(resolver: &Resolver<'_>, edges: &mut Edges, node: Node, expr: &Expr, each: bool, sink: &mut Sink) {
    let list = edges.entry(node).or_default();
    visit(expr, &mut |found| match found {
        Found::Name { root: "each", .. } if each => {}
        Found::Name { root, span, steps } => match resolver.target(root, span, steps) {
            Ok((target, _)) => list.extend(resolver.needs(target).into_iter().map(|n| (n, span))),
            Err(problem) => sink.push(problem),
        },
        Found::Call(call) => {
            if functions::find(&call.name).is_none() {
                sink.push(functions::unknown(call));
            }
        }
    });
}

/// Orders nodes so that each follows what it needs; returns cycles apart. Iterative: chains may be long.
fn sort(nodes: &[Node], edges: &Edges) -> (Vec<Node>, Vec<Vec<Node>>) {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut state: HashMap<Node, State> = HashMap::new();
    let (mut order, mut cycles) = (Vec::new(), Vec::new());
    for start in nodes {
        if state.contains_key(start) {
            continue;
        }
        let mut stack = vec![(*start, 0_usize)];
        state.insert(*start, State::Open);
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            let Some((needed, _)) = edges.get(&node).and_then(|e| e.get(*next)) else {
                state.insert(node, State::Done);
                order.push(node);
                stack.pop();
                continue;
            };
            *next += 1;
            match state.get(needed) {
                Some(State::Done) => {}
                Some(State::Open) => {
                    let from = stack.iter().position(|(n, _)| n == needed).unwrap_or(0);
                    cycles.push(stack[from..].iter().map(|(n, _)| *n).collect());
                }
                None => {
                    state.insert(*needed, State::Open);
                    stack.push((*needed, 0));
                }
            }
        }
    }
    (order, cycles)
}

fn cycle_problem(declared: &Declarations<'_>, cycle: &[Node], edges: &Edges) -> Problem {
    let names: Vec<String> = cycle.iter().chain(&cycle[..1]).map(|n| show(declared, *n)).collect();
    let message = format!("{} depends on itself: {}", names[0], names.join(" -> "));
    let place = |i: usize| {
        let next = cycle[(i + 1) % cycle.len()];
        let edge = edges.get(&cycle[i]).and_then(|e| e.iter().find(|(n, _)| *n == next));
        edge.map_or(Span::NONE, |(_, span)| *span)
    };
    let mut problem = Problem::new("cycle", place(0), message).label(format!("refers to {}", names[1]));
    for i in 1..cycle.len() {
        problem = problem.also(place(i), format!("refers to {}", names[i + 1]));
    }
    problem
}

/// Walks from the variables of environments to all that depends on them: the shortest chain for each.
fn decide(
    environment_scoped: &[usize],
    edges: &Edges,
    checks: &Edges,
) -> HashMap<Node, Option<(Node, Span)>> {
    let mut dependents: BTreeMap<Node, Vec<(Node, Span)>> = BTreeMap::new();
    for (node, needed) in edges.iter().chain(checks) {
        for (need, span) in needed.iter().filter(|(need, _)| need != node) {
            dependents.entry(*need).or_default().push((*node, *span));
        }
    }
    for list in dependents.values_mut() {
        list.sort_unstable();
    }
    let mut decided: HashMap<Node, Option<(Node, Span)>> = HashMap::new();
    let mut queue: VecDeque<Node> = environment_scoped.iter().map(|i| Node::Variable(*i)).collect();
    for node in &queue {
        decided.insert(*node, None);
    }
    while let Some(node) = queue.pop_front() {
        for (dependent, span) in dependents.get(&node).into_iter().flatten() {
            if !decided.contains_key(dependent) {
                decided.insert(*dependent, Some((node, *span)));
                queue.push_back(*dependent);
            }
        }
    }
    decided
}

/// How a node is written.
fn show(declared: &Declarations<'_>, node: Node) -> String {
    match node {
        Node::Variable(i) => format!("var.{}", declared.variables[i].name),
        Node::Local(i) => format!("local.{}", declared.locals[i].name),
        Node::ConfigKey(b, k) => {
            let config = &declared.of_kind("config")[b];
            format!("config.{}.{}", config.name, config.block.body.attributes[k].name)
        }
        Node::ConfigMap(b) => format!("config.{}", declared.of_kind("config")[b].name),
        Node::ForEach(kind, b) => format!("{kind}.{}", declared.of_kind(kind)[b].name),
    }
}

/// Whether a variable's block says that environments decide it.
pub(crate) fn is_environment_scoped(block: &Block) -> bool {
    attribute(&block.body, "scope").and_then(|a| a.expr.as_literal()) == Some("environment")
}
