//! The audit log's Merkle tree: the shape of RFC 6962, section 2.1, with the deployment's hash.

use crate::suite::{Digest32, Suite};
use alloc::vec::Vec;

/// Hash of a leaf: H(00 || leaf).
pub fn leaf_hash(suite: Suite, leaf: &[u8]) -> Digest32 {
    suite.hash(&[&[0], leaf])
}

/// Hash of an inner node: H(01 || left || right).
pub fn node_hash(suite: Suite, left: &Digest32, right: &Digest32) -> Digest32 {
    suite.hash(&[&[1], &left.0, &right.0])
}

/// The roots of the perfect subtrees that make up the tree, largest first: all that appending needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    suite: Suite,
    size: u64,
    roots: Vec<Digest32>,
}

impl Frontier {
    /// The empty tree.
    pub fn empty(suite: Suite) -> Self {
        Self { suite, size: 0, roots: Vec::new() }
    }

    /// Takes stored roots; `None` when their number does not fit the size.
    pub fn from_parts(suite: Suite, size: u64, roots: Vec<Digest32>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { suite, size, roots })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots, largest subtree first.
    pub fn roots(&self) -> &[Digest32] {
        &self.roots
    }

    /// Adds one leaf at the end.
    pub fn append(&mut self, leaf: Digest32) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("one root for each bit of the size");
            hash = node_hash(self.suite, &left, &hash);
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The tree's root; of the empty tree, the hash of nothing.
    pub fn root(&self) -> Digest32 {
        let mut roots = self.roots.iter().rev();
        match roots.next() {
            None => self.suite.hash(&[]),
            Some(last) => roots.fold(*last, |right, left| node_hash(self.suite, left, &right)),
        }
    }
}

/// Root of the tree over `leaves`.
pub fn root_of(suite: Suite, leaves: &[Digest32]) -> Digest32 {
    let mut frontier = Frontier::empty(suite);
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    frontier.root()
}

/// Largest power of two below `len`; `len` is at least 2.
fn split_point(len: usize) -> usize {
    1 << (usize::BITS - 1 - (len - 1).leading_zeros())
}

/// The proof that leaf `index` is in the tree over `leaves` (RFC 6962, section 2.1.1); `None` when it is not.
pub fn inclusion_proof(suite: Suite, leaves: &[Digest32], index: usize) -> Option<Vec<Digest32>> {
    if index >= leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split_point(leaves.len()));
        if index < left.len() {
            proof.push(root_of(suite, right));
            leaves = left;
        } else {
            proof.push(root_of(suite, left));
            index -= left.len();
            leaves = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Checks that `leaf` is at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).
pub fn is_included(
    suite: Suite,
    leaf: &Digest32,
    index: u64,
    size: u64,
    proof: &[Digest32],
    root: &Digest32,
) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(suite, sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(suite, &hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The proof that the tree over the first `old_size` leaves is a prefix (RFC 6962, section 2.1.2).
///
/// `None` when `old_size` is 0 or larger than the tree.
pub fn consistency_proof(suite: Suite, leaves: &[Digest32], old_size: usize) -> Option<Vec<Digest32>> {
    if old_size == 0 || old_size > leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    let (mut leaves, mut old_size, mut is_whole) = (leaves, old_size, true);
    while old_size != leaves.len() {
        let (left, right) = leaves.split_at(split_point(leaves.len()));
        if old_size <= left.len() {
            proof.push(root_of(suite, right));
            leaves = left;
        } else {
            proof.push(root_of(suite, left));
            old_size -= left.len();
            leaves = right;
            is_whole = false;
        }
    }
    if !is_whole {
        proof.push(root_of(suite, leaves));
    }
    proof.reverse();
    Some(proof)
}

/// A tree: how many leaves and its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// The root.
    pub root: Digest32,
}

/// Checks a consistency proof between two heads (RFC 9162, section 2.1.4.2).
pub fn is_consistent(suite: Suite, old: &TreeHead, new: &TreeHead, proof: &[Digest32]) -> bool {
    if old.size == 0 || old.size > new.size {
        return false;
    }
    if old.size == new.size {
        return proof.is_empty() && old.root == new.root;
    }
    let mut path = proof.iter().copied();
    let first = if old.size.is_power_of_two() { Some(old.root) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old.size - 1, new.size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(suite, &sibling, &old_hash);
            new_hash = node_hash(suite, &sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(suite, &new_hash, &sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old.root && new_hash == new.root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Digest32> {
        (0..count).map(|n| leaf_hash(Suite::Intl, &(n as u64).to_be_bytes())).collect()
    }

    /// RFC 6962 definition, written down directly.
    fn defined_root(leaves: &[Digest32]) -> Digest32 {
        match leaves {
            [] => Suite::Intl.hash(&[]),
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(Suite::Intl, &defined_root(&leaves[..k]), &defined_root(&leaves[k..]))
            }
        }
    }

    #[test]
    fn the_root_is_the_one_that_the_rfc_defines() {
        for count in 0..70 {
            assert_eq!(root_of(Suite::Intl, &leaves(count)), defined_root(&leaves(count)), "{count}");
        }
        // Certificate Transparency's published value for the empty tree and for one empty leaf.
        assert!(root_of(Suite::Intl, &[]).to_hex().starts_with("e3b0c44298fc1c14"));
        assert!(leaf_hash(Suite::Intl, b"").to_hex().starts_with("6e340b9cffb37a98"));
    }

    #[test]
    fn every_leaf_is_proven_and_no_other_leaf_or_place_is() {
        for count in 1..40usize {
            let leaves = leaves(count);
            let root = root_of(Suite::Intl, &leaves);
            for index in 0..count {
                let proof = inclusion_proof(Suite::Intl, &leaves, index).expect("in range");
                let check = |leaf: &Digest32, place: usize, proof: &[Digest32]| {
                    is_included(Suite::Intl, leaf, place as u64, count as u64, proof, &root)
                };
                assert!(check(&leaves[index], index, &proof));
                assert!(!check(&leaf_hash(Suite::Intl, b"other"), index, &proof));
                for place in (0..count + 1).filter(|place| *place != index) {
                    assert!(!check(&leaves[index], place, &proof));
                }
                if !proof.is_empty() {
                    assert!(!check(&leaves[index], index, &proof[1..]));
                }
            }
        }
    }

    #[test]
    fn a_prefix_is_proven_and_a_changed_prefix_is_not() {
        for count in 1..40usize {
            let all = leaves(count);
            let new = TreeHead { size: count as u64, root: root_of(Suite::Intl, &all) };
            for old_count in 1..=count {
                let old = TreeHead { size: old_count as u64, root: root_of(Suite::Intl, &all[..old_count]) };
                let proof = consistency_proof(Suite::Intl, &all, old_count).expect("in range");
                assert!(is_consistent(Suite::Intl, &old, &new, &proof), "{old_count} of {count}");
                let mut changed = all[..old_count].to_vec();
                changed[0] = leaf_hash(Suite::Intl, b"changed");
                let forged = TreeHead { root: root_of(Suite::Intl, &changed), ..old };
                assert!(!is_consistent(Suite::Intl, &forged, &new, &proof));
            }
        }
        assert_eq!(consistency_proof(Suite::Intl, &leaves(3), 0), None);
        assert_eq!(consistency_proof(Suite::Intl, &leaves(3), 4), None);
    }

    #[test]
    fn a_stored_frontier_of_the_wrong_size_is_refused() {
        assert!(Frontier::from_parts(Suite::Sm, 5, leaves(2)).is_some());
        assert!(Frontier::from_parts(Suite::Sm, 5, leaves(3)).is_none());
    }
}
