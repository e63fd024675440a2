//! What is said of damaged packs.

use kiln_store::PackDamage;

/// What is wrong, and what to do.
pub(crate) fn told(damage: &PackDamage) -> String {
    let way = if damage.is_index {
        "nothing that is packed can be read; remove that file, and `kiln bake` in the folder as it was at a revision makes its \
         files again"
    } else {
        "`kiln bake` in the folder as it was at a revision makes its files again"
    };
    format!("{damage}; {way}")
}
