//! Pages of a listing.

/// Which part of a listing is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub number: usize,
    /// Items per page, from 1.
    pub size: usize,
}

impl PageRequest {
    /// A page of this size; `None` when either is zero (Nacos refuses that).
    pub fn new(number: usize, size: usize) -> Option<PageRequest> {
        (number > 0 && size > 0).then_some(PageRequest { number, size })
    }

    /// Position of the first item in the whole listing, from 0.
    pub fn offset(&self) -> usize {
        self.number.saturating_sub(1).saturating_mul(self.size)
    }
}

/// A part of a listing, with what is needed to ask for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Items in the whole listing.
    pub total: usize,
    /// Number of this page, as asked for, even beyond the last.
    pub number: usize,
    /// Pages of the asked size in the whole listing; 0 for an empty one.
    pub available: usize,
    /// The items of this page.
    pub items: Vec<T>,
}

impl<T> Page<T> {
    /// The page that was asked for.
    pub fn new(request: PageRequest, total: usize, items: Vec<T>) -> Page<T> {
        debug_assert!(items.len() <= request.size);
        Page {
            total,
            number: request.number,
            available: total.div_ceil(request.size.max(1)),
            items,
        }
    }

    /// The same page of other items.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        let items = self.items.into_iter().map(convert).collect();
        Page {
            total: self.total,
            number: self.number,
            available: self.available,
            items,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_as_nacos_counts_them() {
        let request = PageRequest::new(2, 4).expect("a page");
        assert_eq!(request.offset(), 4);
        assert_eq!(Page::new(request, 10, vec![1, 2, 3, 4]).available, 3);
        assert_eq!(Page::<u8>::new(request, 0, vec![]).available, 0);
        assert_eq!(PageRequest::new(0, 1), None);
        assert_eq!(PageRequest::new(1, 0), None);
        assert_eq!(
            PageRequest {
                number: usize::MAX,
                size: usize::MAX
            }
            .offset(),
            usize::MAX
        );
    }
}
