//! An upper bound of what a validation costs, known before it runs.
//!
//! A validation cannot be stopped half-way. At load, the work that one value at each depth can cause is
//! worked out for the schema: subschemas that judge the same value add up, and where several paths lead
//! to the same member, their visits multiply with the depth. For an input, its values and string bytes
//! are counted by depth, and the bound is the sum of both products.

use serde_json::Value;

use super::{
    BadSchema,
    graph::{Graph, Node, Weight},
};

/// The most evaluations that one value can cause without going into it.
pub(super) const IN_PLACE_MAX: u64 = 10_000;
/// The most subschemas in a row that judge the same value: the stack has to hold all of them at every
/// depth of the input.
pub(super) const CHAIN_MAX: usize = 32;
/// The deepest input that is validated: more than the JSON reader lets in.
const INPUT_DEPTH_MAX: usize = 128;
/// `uniqueItems` compares up to fifteen items pairwise, and hashes more of them.
const UNIQUE_FACTOR: usize = 8;

/// What validation costs, by the depth of the value.
#[derive(Debug)]
pub(super) struct Cost {
    verdict: Vec<Weight>,
    reason: Vec<Weight>,
}

/// An upper bound for one input, in steps of about 20 ns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Estimate {
    /// To know whether it fits.
    pub verdict: u64,
    /// To say why it does not.
    pub reason: u64,
}

impl Cost {
    /// The bound for an input.
    pub(super) fn estimate(&self, input: &Value) -> Estimate {
        let mut counts = [Counts::default(); INPUT_DEPTH_MAX];
        if !count(input, 0, 0, &mut counts) {
            return Estimate { verdict: u64::MAX, reason: u64::MAX };
        }
        let sum = |weights: &[Weight]| {
            counts
                .iter()
                .zip(weights)
                .map(|(counts, weight)| counts.times(*weight))
                .fold(0, u64::saturating_add)
        };
        Estimate { verdict: sum(&self.verdict), reason: sum(&self.reason) }
    }
}

/// The values of an input at one depth.
#[derive(Clone, Copy, Default)]
struct Counts {
    values: u64,
    bytes: u64,
}

impl Counts {
    const fn times(self, weight: Weight) -> u64 {
        let bytes = self.bytes.saturating_mul(weight.byte_sixteenths).div_ceil(16);
        self.values.saturating_mul(weight.steps).saturating_add(bytes)
    }
}

/// Counts an input by depth; `false` where it is too deep. A member's name counts with its value.
fn count(value: &Value, name_bytes: usize, depth: usize, counts: &mut [Counts]) -> bool {
    let own = value.as_str().map_or(0, str::len).saturating_add(name_bytes);
    let Some(here) = counts.get_mut(depth) else { return false };
    here.values = here.values.saturating_add(1);
    here.bytes = here.bytes.saturating_add(u64::try_from(own).unwrap_or(u64::MAX));
    match value {
        Value::Array(items) => items.iter().all(|item| count(item, 0, depth + 1, counts)),
        Value::Object(members) => {
            members.iter().all(|(name, member)| count(member, name.len(), depth + 1, counts))
        }
        _ => true,
    }
}

/// The cost of a schema, or why it has no bound.
pub(super) fn of(graph: &Graph) -> Result<Cost, Vec<BadSchema>> {
    let order = children_first(graph)?;
    in_place(graph, &order)?;
    let mut verdict = Vec::with_capacity(INPUT_DEPTH_MAX);
    let mut reason = Vec::with_capacity(INPUT_DEPTH_MAX);
    let mut above: Option<Vec<Work>> = None;
    for _ in 0..INPUT_DEPTH_MAX {
        let level = level(graph, &order, above.as_deref());
        let root = level.first().copied().unwrap_or_default();
        verdict.push(root.check);
        reason.push(root.check.plus(root.explain));
        above = Some(level);
    }
    Ok(Cost { verdict, reason })
}

/// The work that one value causes, in the three ways that a subschema is evaluated.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// Does the value fit?
    check: Weight,
    /// Which members and items have been evaluated? Branches are judged once more for it.
    mark: Weight,
    /// Why does it not fit? Branches are judged before each is explained.
    explain: Weight,
}

/// The work at the next depth, from the work at the depth above it (`None` for the value itself).
fn level(graph: &Graph, order: &[usize], above: Option<&[Work]>) -> Vec<Work> {
    let mut works = vec![Work::default(); graph.nodes.len()];
    let of = |works: &[Work], id: usize| works.get(id).copied().unwrap_or_default();
    for id in order {
        let Some(node) = graph.nodes.get(*id) else { continue };
        let mut work = own(node, above);
        for (child, _) in &node.in_place {
            let child = of(&works, *child);
            work.check = work.check.plus(child.check);
            work.mark = work.mark.plus(child.check).plus(child.mark);
            work.explain = work.explain.plus(child.check).plus(child.explain);
        }
        if node.unevaluated {
            work.check = work.check.plus(work.mark);
            work.explain = work.explain.plus(work.mark);
        }
        if let Some(place) = works.get_mut(*id) {
            *place = work;
        }
    }
    works
}

/// What a subschema does by itself at this depth below its value.
fn own(node: &Node, above: Option<&[Work]>) -> Work {
    let touched = (0..UNIQUE_FACTOR * usize::from(node.unique_items))
        .fold(Weight::default(), |sum, _| sum.plus(Weight { steps: 1, byte_sixteenths: 1 }));
    let Some(above) = above else {
        let weight = node.weight.plus(touched);
        return Work { check: weight, mark: node.weight, explain: weight };
    };
    let at = |id: &usize| above.get(*id).copied().unwrap_or_default();
    let below = |pick: fn(Work) -> Weight| {
        let most = |ids: &[usize]| ids.iter().map(|id| pick(at(id))).fold(Weight::default(), Weight::max);
        let all = |ids: &[usize]| ids.iter().map(|id| pick(at(id))).fold(Weight::default(), Weight::plus);
        let member = most(&node.one_member).plus(all(&node.each_member)).plus(all(&node.names));
        let item = most(&node.one_item).plus(all(&node.each_item));
        member.max(item).plus(node.names_weight).plus(touched)
    };
    let marked = node.marked.iter().map(|id| at(id).check).fold(node.names_weight, Weight::plus);
    let check = below(|work| work.check);
    Work { check, mark: marked, explain: check.plus(below(|work| work.explain)) }
}

/// The subschemas, those that judge the same value before the one that asks them; cycles are refused.
fn children_first(graph: &Graph) -> Result<Vec<usize>, Vec<BadSchema>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; graph.nodes.len()];
    let (mut order, mut bad) = (Vec::new(), Vec::new());
    for root in 0..graph.nodes.len() {
        let mut open = vec![(root, 0_usize)];
        while let Some((id, at)) = open.pop() {
            let (Some(node), Some(state)) = (graph.nodes.get(id), states.get_mut(id)) else { continue };
            if *state == State::Done {
                continue;
            }
            *state = State::Open;
            let Some((child, keyword)) = node.in_place.get(at) else {
                *state = State::Done;
                order.push(id);
                continue;
            };
            open.push((id, at + 1));
            match states.get(*child) {
                Some(State::Open) => bad.push(BadSchema {
                    at: format!("{}/{keyword}", node.pointer),
                    rule: "cycle".into(),
                    message: "refers to itself without going into the value, and so accepts everything"
                        .into(),
                }),
                Some(State::New) => open.push((*child, 0)),
                _ => {}
            }
        }
    }
    if bad.is_empty() { Ok(order) } else { Err(bad) }
}

/// Bounds what one value can cause without going into it. Names the innermost culprits.
fn in_place(graph: &Graph, order: &[usize]) -> Result<(), Vec<BadSchema>> {
    let mut evaluations = vec![1_u64; graph.nodes.len()];
    let mut chains = vec![1_usize; graph.nodes.len()];
    let mut bad = Vec::new();
    for id in order {
        let Some(node) = graph.nodes.get(*id) else { continue };
        let children = || node.in_place.iter().map(|(child, _)| *child);
        let most = children().filter_map(|child| evaluations.get(child)).copied().max().unwrap_or(0);
        let sum = children()
            .filter_map(|child| evaluations.get(child))
            .fold(1_u64, |sum, count| sum.saturating_add(*count));
        let chain = children().filter_map(|child| chains.get(child)).copied().max().unwrap_or(0);
        if sum > IN_PLACE_MAX && most <= IN_PLACE_MAX {
            let message = format!("one value can cause more than {IN_PLACE_MAX} evaluations here");
            bad.push(BadSchema { at: node.pointer.clone(), rule: "fan-out".into(), message });
        }
        if chain == CHAIN_MAX {
            let message = format!("more than {CHAIN_MAX} subschemas in a row judge the same value");
            bad.push(BadSchema { at: node.pointer.clone(), rule: "chain".into(), message });
        }
        if let Some(place) = evaluations.get_mut(*id) {
            *place = sum;
        }
        if let Some(place) = chains.get_mut(*id) {
            *place = chain + 1;
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}
