package simulation

import (
	"testing"
	"time"
)

// scenarios are small worlds in which every history up to a depth is gone
// through.
var scenarios = []struct {
	name     string
	start    []Op
	alphabet []Op
	depth    int // reached in make test
	soak     int
}{
	{
		name: "blobs", // are they there when they were promised, and gone when nobody needs them
		alphabet: []Op{
			{Kind: opPushBlob, R: 1, B: 0}, {Kind: opPushBlob, R: 1, B: 4}, {Kind: opStat, R: 1, B: 4}, {Kind: opMount, R: 0, B: 4},
			{Kind: opPush, R: 1, M: mA, Tag: -1}, {Kind: opDelete, R: 1, M: mA}, {Kind: opAdvance, N: 6}, {Kind: opAdvance, N: 7},
			{Kind: opTick}, {Kind: opCollect}, {Kind: opCrash}, {Kind: opStart},
			{Kind: opPushBlob, R: 1, B: 4, Crash: 1}, {Kind: opCollect, Crash: 2}, {Kind: opReconcile},
		},
		depth: 9, soak: 11,
	},
	{
		name:  "uses", // of an index by its child's config, with silence, doubt and crashes
		start: []Op{{Kind: opImage, M: mA, Tag: -1}, {Kind: opImage, M: mI, Tag: tag1}, {Kind: opImage, M: mSig, Tag: -1}},
		alphabet: []Op{
			{Kind: opPull, M: mA}, {Kind: opState, R: 0, M: nMan, B: -1}, {Kind: opState, R: 0, M: -1, B: -1}, {Kind: opState, R: 1, M: mC, B: -1},
			{Kind: opDated, R: 0, M: nMan, N: 10}, {Kind: opDated, R: 1, M: mA, N: 0}, {Kind: opForget, R: 0},
			{Kind: opAdvance, N: 1}, {Kind: opAdvance, N: 31}, {Kind: opJump, N: 40}, {Kind: opJump, N: -40},
			{Kind: opBegin}, {Kind: opNext}, {Kind: opNext, Crash: 1}, {Kind: opCrash}, {Kind: opStart},
		},
		depth: 6, soak: 7,
	},
	{
		name:  "tags", // moved, deleted, hidden and restored
		start: []Op{{Kind: opImage, R: 1, M: mC, Tag: tag1}, {Kind: opImage, R: 1, M: mFal, Tag: tagFallback}},
		alphabet: []Op{
			{Kind: opImage, R: 1, M: mB, Tag: tag1}, {Kind: opRetag, R: 1, M: mC, Tag: tag1}, {Kind: opDeleteTag, R: 1, Tag: tag1},
			{Kind: opDelete, R: 1, M: mC}, {Kind: opRestore, R: 1, M: mC}, {Kind: opPullTag, R: 1, Tag: tag1}, {Kind: opPin, R: 1, M: mC},
			{Kind: opUnpin, R: 1, M: mC}, {Kind: opAdvance, N: 25}, {Kind: opAdvance, N: 12}, {Kind: opTick},
			{Kind: opTick, Sub: []Op{{Kind: opRestore, R: 1, M: mC}}}, {Kind: opTick, N: 1, Sub: []Op{{Kind: opRetag, R: 1, M: mC, Tag: tag2}}},
		},
		depth: 8, soak: 9,
	},
	{
		name: "everything", // a little of all
		start: []Op{{Kind: opImage, M: mA, Tag: tag1}, {Kind: opImage, M: mB, Tag: -1}, {Kind: opImage, M: mI, Tag: tag2}, {Kind: opImage, M: mSig, Tag: -1},
			{Kind: opImage, R: 1, M: mJ, Tag: tag2}, {Kind: opImage, R: 1, M: mA, Tag: -1}},
		alphabet: []Op{
			{Kind: opImage, M: mC, Tag: tag1}, {Kind: opImage, R: 1, M: mI, Tag: tag1}, {Kind: opMount, R: 1, B: 5}, {Kind: opStat, B: 4}, {Kind: opRetag, M: mA, Tag: tag2},
			{Kind: opDeleteTag, Tag: tag2}, {Kind: opDelete, M: mI}, {Kind: opDelete, R: 1, M: mA}, {Kind: opPull, M: mB}, {Kind: opPullTag, R: 1, Tag: tag2},
			{Kind: opPin, M: mSig}, {Kind: opUnpin, M: mSig}, {Kind: opRestore, M: mI}, {Kind: opRestore, R: 1, M: mA}, {Kind: opDated, R: -1, M: mJ, N: 3},
			{Kind: opState, R: 0, M: mI, B: -1}, {Kind: opState, R: 1, M: nMan + 1, B: -1}, {Kind: opForget, R: 1}, {Kind: opAdvance, N: 1}, {Kind: opAdvance, N: 13}, {Kind: opAdvance, N: 31},
			{Kind: opJump, N: 60}, {Kind: opJump, N: -10}, {Kind: opOpen}, {Kind: opClose}, {Kind: opCrash}, {Kind: opStop}, {Kind: opStart},
			{Kind: opBegin}, {Kind: opNext}, {Kind: opTick}, {Kind: opTick, Crash: 2}, {Kind: opCollect}, {Kind: opReconcile},
		},
		depth: 5, soak: 6,
	},
}

// Every history up to the depth keeps what must hold.
func TestExhaustive(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			depth, until := sc.depth, 10*time.Minute
			if testing.Short() {
				depth -= 2
			}
			if soak() {
				depth, until = sc.soak, time.Hour
			}
			l := NewLab(0)
			began := time.Now()
			done, ops, err := l.Explore(sc.start, sc.alphabet, depth, until)
			if err != nil {
				fail(t, l, ops, err)
			}
			if err == nil && !done.Whole {
				t.Errorf("came to depth %d of %d only", done.Depth, depth)
			}
			t.Logf("every history of %d operations to depth %d: %d steps, %d states, %s", len(sc.alphabet), done.Depth, done.Steps, done.States, time.Since(began).Round(time.Millisecond))
		})
	}
}

// The exhaustive exploration finds mistakes, too, and the shortest history.
func TestExhaustiveFinds(t *testing.T) {
	for bug, scenario := range map[Bug]string{CollectIgnoresLease: "blobs", PushHoldsNothing: "blobs", IgnoreDoubt: "uses", NoUpCredit: "uses", ChildrenFirst: "uses", IgnoreClock: "uses",
		RestoreOverwritesTag: "tags", NoRecheck: "uses"} {
		t.Run(bug.String(), func(t *testing.T) {
			t.Parallel()
			for _, sc := range scenarios {
				if sc.name != scenario {
					continue
				}
				l := NewLab(bug)
				_, ops, err := l.Explore(sc.start, sc.alphabet, sc.depth, 10*time.Minute)
				if err == nil {
					t.Fatal("not found")
				}
				t.Logf("after\n%s%v", l.Print(ops), err)
			}
		})
	}
}
