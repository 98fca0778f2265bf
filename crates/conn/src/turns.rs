//! Work that comes without end, and those who must not wait for the end of it.

/// How often something may be done in a row.
#[derive(Debug)]
pub(crate) struct Turns {
    most: u32,
    left: u32,
}

impl Turns {
    /// `most` times in a row, at least once.
    pub(crate) fn of(most: u32) -> Self {
        Self { most: most.max(1), left: most.max(1) }
    }

    /// It was done once. After the last time of a row this waits until all that was ready has had its turn;
    /// the runtime looks for what has become ready before it comes back.
    pub(crate) async fn did(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.most;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::Turns;

    #[test]
    #[allow(clippy::disallowed_methods)] // tasks of a test
    fn a_flood_lets_others_have_their_turn() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let (order, over) = (Rc::new(RefCell::new(String::new())), Rc::new(Cell::new(false)));
            let (flood, ends) = (order.clone(), over.clone());
            tokio::task::spawn_local(async move {
                let mut turns = Turns::of(3);
                for _ in 0..12 {
                    flood.borrow_mut().push('f');
                    turns.did().await;
                }
                ends.set(true);
            });
            while !over.get() {
                order.borrow_mut().push('.');
                tokio::task::yield_now().await;
            }
            let order = order.borrow().clone();
            assert!(order.contains("fff") && !order.contains("ffff"), "{order}");
        });
    }
}
