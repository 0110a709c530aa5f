"""Programs are judged as one process would judge them; what stays different stands in docs/judging.md.

The reference is independent: a plain interpreter that runs program and tests in one process, or the script by itself.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from cptlab.judging.verdicts.judge import judge_programs
from cptlab.records import Prompt, Task, Test

ROOT = Path(__file__).resolve().parents[2]

# name, program, test
CHECKS = [
    (
        "keyword argument changed in place",
        "def f(xs):\n    xs.sort()\n",
        "xs = [3, 1]\ncandidate(xs=xs)\nassert xs == [1, 3]",
    ),
    (
        "ndarray row assigned",
        "def f(a):\n    a[0] = 9\n",
        "import numpy as np\na = np.zeros(2)\ncandidate(a)\nassert a[0] == 9",
    ),
    (
        "Counter changed in place",
        "def f(c):\n    c['a'] += 1\n",
        "from collections import Counter\nc = Counter('a')\ncandidate(c)\nassert c['a'] == 2",
    ),
    ("list in a tuple changed", "def f(t):\n    t[0].append(1)\n", "t = ([],)\ncandidate(t)\nassert t == ([1],)"),
    ("returns the argument itself", "def f(a):\n    a.append(1)\n    return a\n", "a = []\nassert candidate(a) is a"),
    (
        "namedtuple fields",
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(a):\n    return P(a, 2)\n",
        "p = candidate(1)\nassert p.x == 1 and p == (1, 2)",
    ),
    (
        "dict views",
        "def f(n):\n    return {1: 2}.keys()\n",
        "assert list(candidate(1)) == [1]\nassert sorted(candidate(1)) == [1]\nassert candidate(1) == {1}",
    ),
    (
        "memoryview",
        "def f(n):\n    return memoryview(b'ab')\n",
        "assert bytes(candidate(1)) == b'ab'\nassert candidate(1) == b'ab'",
    ),
    (
        "class instance handed in, compared",
        "def f(a, b):\n    return a == b\n",
        "class A:\n    def __eq__(s, o): return True\nassert candidate(A(), A()) is True",
    ),
    (
        "sorts handed objects",
        "def f(xs):\n    return sorted(xs)\n",
        "import functools\n@functools.total_ordering\nclass A:\n    def __init__(s, v): s.v = v\n    def __lt__(s, o): return s.v < o.v\n    def __eq__(s, o): return s.v == o.v\nassert [a.v for a in candidate([A(2), A(1)])] == [1, 2]",
    ),
    (
        "linked list reversed in place",
        "def f(h):\n    p = None\n    while h:\n        h.next, p, h = p, h, h.next\n    return p\n",
        "class N:\n    def __init__(s, v, n=None): s.v, s.next = v, n\nh = N(1, N(2))\nr = candidate(h)\nassert r.v == 2 and r.next.v == 1 and r.next is h",
    ),
    (
        "global of the program read",
        "STATE = 5\ndef f():\n    return STATE\n",
        "assert f.__name__ == 'f'\nassert candidate.__doc__ is None",
    ),
    (
        "exception args",
        "def f(x):\n    raise ValueError('bad', x)\n",
        "try:\n    candidate(4)\nexcept ValueError as e:\n    assert e.args == ('bad', 4)",
    ),
    (
        "defaultdict lambda",
        "from collections import defaultdict\ndef f(n):\n    d = defaultdict(lambda: 7)\n    d[1] = n\n    return d\n",
        "d = candidate(2)\nassert d == {1: 2} and d[5] == 7",
    ),
    (
        "async",
        "import asyncio\nasync def f(x):\n    return x\n",
        "import asyncio\nassert asyncio.run(candidate(1)) == 1",
    ),
    (
        "lru_cache info",
        "import functools\n@functools.lru_cache\ndef f(x):\n    return x\n",
        "candidate(1)\ncandidate(1)\nassert candidate.cache_info().hits == 1",
    ),
    (
        "kw and positional mixed",
        "def f(a, *, b):\n    b['k']=a\n    a.append(b)\n",
        "a=[];b={}\ncandidate(a,b=b)\nassert a==[{'k':a}] and a[0] is b",
    ),
    (
        "alias rows",
        "def f(g):\n    g[0][0]=9\n",
        "r=[0,0]\ng=[r,r]\ncandidate(g)\nassert g==[[9,0],[9,0]] and r==[9,0]",
    ),
    (
        "alias across args",
        "def f(a,b):\n    a.append(1)\n    return b\n",
        "x=[]\nassert candidate(x,x) is x\nassert x==[1]",
    ),
    ("returned aliases", "def f(n):\n    return [[0]*2]*2\n", "r=candidate(1)\nr[0][0]=5\nassert r==[[5,0],[5,0]]"),
    (
        "cyclic value",
        "def f(n):\n    a=[1]\n    a.append(a)\n    return a\n",
        "a=candidate(1)\nassert a[1] is a and a[0]==1",
    ),
    (
        "deque rotate",
        "def f(d):\n    d.rotate(1)\n    d.append(9)\n",
        "from collections import deque\nd=deque([1,2,3],maxlen=3)\ncandidate(d)\nassert list(d)==[1,2,9] and d.maxlen==3",
    ),
    (
        "deque in dict",
        "def f(d):\n    d['q'].popleft()\n",
        "from collections import deque\nq=deque([1,2])\ncandidate({'q':q})\nassert list(q)==[2]",
    ),
    (
        "OrderedDict move",
        "def f(d):\n    d.move_to_end('a')\n",
        "from collections import OrderedDict\nd=OrderedDict(a=1,b=2)\ncandidate(d)\nassert list(d)==['b','a']",
    ),
    (
        "defaultdict in",
        "def f(d):\n    d['x'].append(1)\n    return d\n",
        "from collections import defaultdict\nd=defaultdict(list)\nassert candidate(d) is d\nassert d=={'x':[1]} and d['y']==[]",
    ),
    (
        "defaultdict lambda in",
        "def f(d):\n    return d['x']\n",
        "from collections import defaultdict\nd=defaultdict(lambda: 4)\nassert candidate(d)==4\nassert d=={'x':4}",
    ),
    (
        "nested defaultdict",
        "from collections import defaultdict\ndef f(n):\n    d=defaultdict(lambda: defaultdict(int))\n    d[1][2]+=1\n    return d\n",
        "d=candidate(1)\nassert d=={1:{2:1}} and d[5][6]==0",
    ),
    (
        "bytearray",
        "def f(b):\n    b.extend(b'x')\n    b[0]=65\n",
        "b=bytearray(b'ab')\ncandidate(b)\nassert b==bytearray(b'Abx')",
    ),
    (
        "array",
        "def f(a):\n    a.append(3)\n",
        "import array\na=array.array('i',[1])\ncandidate(a)\nassert a.tolist()==[1,3]",
    ),
    ("set in place", "def f(s):\n    s.add(3)\n    s.discard(1)\n", "s={1,2}\ncandidate(s)\nassert s=={2,3}"),
    (
        "numpy sort",
        "def f(a):\n    a.sort()\n    return a\n",
        "import numpy as np\na=np.array([3,1])\nr=candidate(a)\nassert r is a and a.tolist()==[1,3]",
    ),
    (
        "numpy in list",
        "def f(l):\n    l[0]+=1\n",
        "import numpy as np\na=np.zeros((2,2))\ncandidate([a])\nassert a.sum()==4",
    ),
    (
        "numpy fill view",
        "def f(a):\n    a[:]=7\n",
        "import numpy as np\nb=np.zeros((2,2))\ncandidate(b[0])\nassert b.tolist()==[[7,7],[0,0]]",
    ),
    (
        "list subclass mutated",
        "def f(l):\n    l.append(1)\n",
        "class L(list): pass\nl=L([0])\ncandidate(l)\nassert l==[0,1] and type(l) is L",
    ),
    (
        "shuffle in place",
        "import random\ndef f(l):\n    random.shuffle(l)\n",
        "l=[1,2,3]\ncandidate(l)\nassert sorted(l)==[1,2,3]",
    ),
    ("del slice", "def f(l):\n    del l[1:]\n", "l=[1,2,3]\ncandidate(l)\nassert l==[1]"),
    (
        "dict pop order",
        "def f(d):\n    v=d.pop('a')\n    d['a']=v\n",
        "d={'a':1,'b':2}\ncandidate(d)\nassert list(d)==['b','a']",
    ),
    (
        "typing.NamedTuple",
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int = 2\ndef f(a):\n    return P(a)\n",
        "p=candidate(1)\nassert p.y==2 and p==(1,2) and p._asdict()=={'x':1,'y':2} and type(p).__name__=='P'\nx,y=p\nassert p._replace(x=5)==(5,2)",
    ),
    (
        "list of namedtuples",
        "from collections import namedtuple\nP=namedtuple('P','x')\ndef f(n):\n    return [P(i) for i in range(n)]\n",
        "assert [p.x for p in candidate(3)]==[0,1,2]\nassert sorted(candidate(2))==[(0,),(1,)]",
    ),
    (
        "namedtuple in",
        "def f(p):\n    return p.x+p.y\n",
        "from collections import namedtuple\nassert candidate(namedtuple('P','x y')(1,2))==3",
    ),
    (
        "namedtuple with list",
        "from collections import namedtuple\nP=namedtuple('P','x')\ndef f(l):\n    return P(l)\n",
        "l=[1]\nassert candidate(l).x is l",
    ),
    (
        "IntEnum",
        "from enum import IntEnum\nclass E(IntEnum):\n    A=1\n    B=2\ndef f(n):\n    return E(n)\n",
        "e=candidate(2)\nassert e==2 and e.name=='B' and e.value==2 and isinstance(e,int) and e>candidate(1) and str(e)=='2'",
    ),
    (
        "Enum",
        "from enum import Enum\nclass E(Enum):\n    A=1\ndef f(n):\n    return E.A\n",
        "e=candidate(2)\nassert e.name=='A' and e.value==1",
    ),
    (
        "str Enum value",
        "from enum import Enum\nclass E(str,Enum):\n    A='a'\ndef f(n):\n    return E.A\n",
        "e=candidate(2)\nassert e.name=='A' and e.value=='a' and e=='a' and str(e)=='E.A'",
    ),
    (
        "IntFlag",
        "from enum import IntFlag\nclass E(IntFlag):\n    A=1\n    B=2\ndef f(n):\n    return E.A|E.B\n",
        "assert candidate(2)==3",
    ),
    (
        "exception attribute",
        "class Bad(ValueError):\n    def __init__(s,msg,code):\n        super().__init__(msg)\n        s.code=code\ndef f(x):\n    raise Bad('no',7)\n",
        "try:\n    candidate(1)\n    assert 0\nexcept ValueError as e:\n    assert e.code==7 and str(e)=='no' and type(e).__name__=='Bad' and e.args==('no',)",
    ),
    (
        "OSError attrs",
        "def f(p):\n    open(p)\n",
        "import errno\ntry:\n    candidate('nofile')\n    assert 0\nexcept FileNotFoundError as e:\n    assert e.errno==errno.ENOENT and e.filename=='nofile'",
    ),
    (
        "JSONDecodeError attrs",
        "import json\ndef f(s):\n    return json.loads(s)\n",
        "import json\ntry:\n    candidate('{a')\n    assert 0\nexcept json.JSONDecodeError as e:\n    assert e.pos==1 and e.lineno==1 and e.doc=='{a' and 'Expecting' in e.msg",
    ),
    (
        "UnicodeDecodeError",
        "def f(b):\n    return b.decode()\n",
        "try:\n    candidate(b'\\xff')\n    assert 0\nexcept UnicodeDecodeError as e:\n    assert e.start==0 and e.reason and e.object==b'\\xff'",
    ),
    (
        "KeyError args",
        "def f(d):\n    return d['x']\n",
        "try:\n    candidate({})\n    assert 0\nexcept KeyError as e:\n    assert e.args[0]=='x'",
    ),
    (
        "exception with list",
        "def f(x):\n    raise ValueError([1,{2}])\n",
        "try:\n    candidate(1)\n    assert 0\nexcept ValueError as e:\n    assert e.args==([1,{2}],)",
    ),
    (
        "ZeroDivision",
        "def f(x):\n    return 1/x\n",
        "import unittest\nwith unittest.TestCase().assertRaisesRegex(ZeroDivisionError,'division'):\n    candidate(0)",
    ),
    (
        "dict items view",
        "def f(n):\n    return {'a':1}.items()\n",
        "assert candidate(1)=={('a',1)}\nassert dict(candidate(1))=={'a':1}\nassert len(candidate(1))==1",
    ),
    (
        "dict values view",
        "def f(n):\n    return {'a':1}.values()\n",
        "assert list(candidate(1))==[1] and 1 in candidate(1)",
    ),
    (
        "zip map filter",
        "def f(n):\n    return [zip([1],[2]),map(str,[1]),filter(None,[0,1]),enumerate('a')][n]\n",
        "assert list(candidate(0))==[(1,2)]\nassert list(candidate(1))==['1']\nassert list(candidate(2))==[1]\nassert list(candidate(3))==[(0,'a')]",
    ),
    (
        "struct_time",
        "import time\ndef f(n):\n    return time.gmtime(n)\n",
        "assert candidate(0).tm_year==1970 and candidate(0)[1]==1",
    ),
    (
        "doc and dict",
        "def f(n):\n    'says'\n    class A:\n        def __init__(s): s.a=n\n    return A()\n",
        "assert candidate.__doc__=='says'\nassert vars(candidate(3))=={'a':3} and candidate(4).__dict__=={'a':4}",
    ),
    (
        "handed vector",
        "def f(a,b):\n    return (a+b).x, (2*a).x, -a\n",
        "class V:\n    def __init__(s,x): s.x=x\n    def __add__(s,o): return V(s.x+o.x)\n    def __rmul__(s,k): return V(k*s.x)\n    def __neg__(s): return -s.x\nassert candidate(V(1),V(2))==(3,2,-1)",
    ),
    (
        "handed eq in list",
        "def f(xs,x):\n    return x in xs, xs.index(x), xs.count(x)\n",
        "class V:\n    def __init__(s,x): s.x=x\n    def __eq__(s,o): return s.x==o.x\nassert candidate([V(1),V(2)],V(2))==(True,1,1)",
    ),
    (
        "cycle detection is",
        "def f(h):\n    s=q=h\n    while q and q.next:\n        s,q=s.next,q.next.next\n        if s is q: return True\n    return False\n",
        "class N:\n    def __init__(s): s.next=None\na,b=N(),N()\na.next=b\nassert candidate(a) is False\nb.next=a\nassert candidate(a) is True",
    ),
    (
        "tree nodes",
        "def f(r):\n    if not r: return 0\n    return 1+max(f(r.left),f(r.right))\n",
        "class T:\n    def __init__(s,l=None,r=None): s.left,s.right=l,r\nassert candidate(T(T(),None))==2",
    ),
    (
        "deepcopy of result",
        "import copy\nclass A:\n    def __init__(s): s.v=[1]\ndef f(n):\n    return A()\n",
        "import copy\na=candidate(1)\nb=copy.deepcopy(a)\nb.v=[2]\nassert a.v==[1] and b.v==[2] and copy.copy(a) is not a",
    ),
    ("singleton object", "X=object()\ndef f(n):\n    return X\n", "assert candidate(1) is candidate(2)"),
    (
        "callback mutates",
        "def f(cb):\n    l=[]\n    cb(l)\n    return l\n",
        "assert candidate(lambda l: l.append(4))==[4]",
    ),
    (
        "generator from program mutated",
        "def f(l):\n    l.append(1)\n    yield l\n",
        "l=[]\ng=candidate(l)\nassert list(g)==[[1]]",
    ),
    (
        "memo default arg",
        "def f(x,seen=[]):\n    seen.append(x)\n    return len(seen)\n",
        "assert candidate(1)==1\nassert candidate(1)==2",
    ),
    ("memoryview in", "def f(m):\n    return bytes(m)\n", "assert candidate(memoryview(b'ab'))==b'ab'"),
    (
        "mutates then raises",
        "def f(l):\n    l.append(1)\n    raise ValueError\n",
        "l=[]\ntry:\n    candidate(l)\nexcept ValueError:\n    pass\nassert l==[1]",
    ),
    (
        "Counter result",
        "from collections import Counter\ndef f(s):\n    return Counter(s)\n",
        "c=candidate('aab')\nassert c.most_common(1)==[('a',2)] and c['z']==0",
    ),
    (
        "dataclass attrs",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x:int\ndef f(n):\n    return P(n)\n",
        "p=candidate(3)\nassert p.x==3 and repr(p)",
    ),
    (
        "bool numpy scalar",
        "import numpy as np\ndef f(n):\n    return np.float64(2.5), np.bool_(True), np.int64(3)\n",
        "a,b,d=candidate(1)\nassert a==2.5 and b and d==3 and type(a).__name__=='float64'",
    ),
    (
        "keyword only prefetched",
        "def f(a,b=2):\n    return a*b\n",
        "assert candidate(2,b=3)==6\nassert candidate(a=2)==4\nassert candidate(*[1,2])==2\nassert candidate(**{'a':1})==2",
    ),
    (
        "string methods on str subclass",
        "class S(str):\n    def up(s): return s.upper()\ndef f(x):\n    return S('a')\n",
        "assert candidate(1)=='a' and candidate(1).upper()=='A'",
    ),
    (
        "gather",
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\n",
        "import asyncio\nasync def t():\n    return await asyncio.gather(candidate(1),candidate(2))\nassert asyncio.run(t())==[1,2]\nassert asyncio.run(candidate(3))==3",
    ),
    (
        "async raises",
        "async def f(x):\n    raise ValueError('a')\n",
        "import asyncio\ntry:\n    asyncio.run(candidate(1))\n    assert 0\nexcept ValueError as e:\n    assert str(e)=='a'",
    ),
    (
        "Enum handed",
        "def f(e):\n    return e.value, e.name\n",
        "from enum import Enum\nclass C(Enum):\n    R=1\nassert candidate(C.R)==(1,'R')",
    ),
    (
        "IntEnum handed",
        "def f(e):\n    return e+1\n",
        "from enum import IntEnum\nclass C(IntEnum):\n    R=1\nassert candidate(C.R)==2",
    ),
    ("set of frozensets", "def f(n):\n    return {frozenset([n])}\n", "assert candidate(1)=={frozenset([1])}"),
    (
        "tuple key dict nested",
        "def f(d):\n    d[(1,2)]['a'].append(3)\n",
        "d={(1,2):{'a':[]}}\ncandidate(d)\nassert d=={(1,2):{'a':[3]}}",
    ),
    (
        "two names share",
        "G=[]\ndef f(x):\n    G.append(x)\n    return G\n",
        "a=candidate(1)\nassert a==[1]\nassert candidate(2)==[1,2]",
    ),
    (
        "clear and extend",
        "def f(l):\n    l.clear()\n    l.extend([[1],[2]])\n    return l[0]\n",
        "l=[5]\nr=candidate(l)\nassert l==[[1],[2]] and r is l[0]",
    ),
    (
        "swap inner",
        "def f(g):\n    g[0],g[1]=g[1],g[0]\n",
        "a,b=[1],[2]\ng=[a,b]\ncandidate(g)\nassert g[0] is b and g[1] is a",
    ),
    (
        "big list in place",
        "def f(l):\n    l.reverse()\n",
        "l=[(i%3,'a') for i in range(20000)]\nm=l[::-1]\ncandidate(l)\nassert l==m",
    ),
    ("generator sums", "def f(*a, **k):\n    return a, k\n", "assert candidate(1,[2],x={3})==((1,[2]),{'x':{3}})"),
    (
        "np inplace 2d kw",
        "import numpy as np\ndef f(m=None):\n    m*=2\n    m[0,0]=np.nan\n",
        "import numpy as np\nm=np.ones((2,2))\ncandidate(m=m)\nassert np.isnan(m[0,0]) and m[1,1]==2",
    ),
    (
        "class from names",
        "class Stack:\n    def __init__(s): s.i=[]\n    def push(s,x): s.i.append(x); return s\n    def __len__(s): return len(s.i)\ndef f():\n    return Stack()\n",
        "st=candidate()\nst.push(1).push([2])\nassert len(st)==2 and st.i==[1,[2]] and bool(st) and not candidate()",
    ),
    (
        "context manager",
        "import contextlib\n@contextlib.contextmanager\ndef f(x):\n    yield x\n",
        "with candidate([1]) as v:\n    assert v==[1]",
    ),
    (
        "decorator returned",
        "def f(fn):\n    def w(*a):\n        return fn(*a)*2\n    return w\n",
        "g=candidate(lambda x: x+1)\nassert g(2)==6",
    ),
    ("warns", "import warnings\ndef f(x):\n    return x\n", "assert candidate(float('nan'))!=candidate(float('nan'))"),
    ("partial", "import functools\ndef f(x):\n    return functools.partial(pow,x)\n", "assert candidate(2)(3)==8"),
    (
        "iter protocol",
        "class It:\n    def __init__(s,n): s.n=n\n    def __iter__(s): return s\n    def __next__(s):\n        s.n-=1\n        if s.n<0: raise StopIteration\n        return s.n\ndef f(n):\n    return It(n)\n",
        "assert list(candidate(3))==[2,1,0]\nassert sum(candidate(3))==3",
    ),
    (
        "contains getitem slices",
        "class B:\n    def __getitem__(s,i): return i\ndef f(n):\n    return B()\n",
        "b=candidate(1)\nassert b[3]==3 and b['x']=='x' and b[1:2]==slice(1,2)",
    ),
    (
        "str of object",
        "class B:\n    def __str__(s): return 'B!'\n    def __repr__(s): return 'rB'\ndef f(n):\n    return B()\n",
        "assert str(candidate(1))=='B!' and f'{candidate(1)}'=='B!'\nassert repr(candidate(1))=='rB'",
    ),
    ("format spec", "def f(x):\n    return f'{x:.2f}'\n", "assert candidate(1.005)=='1.00'"),
    (
        "hash of objects in dict",
        "class B: pass\nX=B()\ndef f(n):\n    return X\n",
        "d={candidate(1):1}\nassert d[candidate(2)]==1",
    ),
]

# name, program, standard input
SCRIPTS = [
    ("CRLF in", "n=int(input());print(sum(map(int,input().split())))", "3\r\n1 2 3\r\n"),
    (
        "inspect source",
        "import inspect,sys\ndef g(): return 1\ntry: inspect.getsource(g)\nexcept OSError: print('no source');raise SystemExit\ninput();print(sum(map(int,input().split())))",
        "3\n1 2 3\n",
    ),
    (
        "fdopen unflushed global",
        "import os\nout=os.fdopen(1,'w')\ninput();out.write(str(sum(map(int,input().split()))))",
        "3\n1 2 3\n",
    ),
    ("global del at exit prints", "class W:\n    def __del__(s): print(6)\nw=W()", "3\n1 2 3\n"),
    (
        "sys.stdout.name",
        "import sys\nassert sys.stdout.name=='<stdout>'\ninput();print(sum(map(int,input().split())))",
        "3\n1 2 3\n",
    ),
    ("weakref finalize", "import weakref\nclass A: pass\na=A()\nweakref.finalize(a,print,'fin')\nprint(6)", ""),
    ("generator at exit", "def g():\n    try: yield\n    finally: print('x')\nx=g();next(x);print(6)", ""),
    ("CRLF kept in repr", "print(repr(input()))", "ab\r\n"),
    ("CRLF lines via sys.stdin", "import sys\nprint([l for l in sys.stdin])", "a\r\nb\r\n"),
    ("CRLF read", "import sys\nprint(repr(sys.stdin.read()))", "a\r\nb\rc\n"),
    ("CRLF palindromes", "t=input()\nprint('YES' if t==t[::-1] else 'NO')", "aba\r\n"),
    ("open0 CRLF", "print(repr(open(0).read()))", "a\r\nb\n"),
    (
        "class with del printing",
        "class A:\n    def __init__(s,n): s.n=n\n    def __del__(s): print('bye',s.n)\na=A(1);b=A(2)\nprint('main')",
        "",
    ),
    ("del in cycle", "class A:\n    def __del__(s): print('bye')\na=A();a.me=a\nprint(1)", ""),
    (
        "finalize atexit order",
        "import weakref,atexit\nclass A: pass\na=A();b=A()\nweakref.finalize(a,print,'a');weakref.finalize(b,print,'b');atexit.register(print,'x');print(0)",
        "",
    ),
    (
        "finalize when deleted",
        "import weakref\nclass A: pass\na=A()\nweakref.finalize(a,print,'gone')\ndel a\nprint(0)",
        "",
    ),
    ("file object stdout dup", "import os\nf=os.fdopen(os.dup(1),'w')\nf.write('6')\nprint(5)", ""),
    ("open /dev/fd style", "f=open(1,'w',closefd=False)\nf.write('hello')", ""),
    ("replaced StringIO", "import sys,io\nprint(6)\nsys.stdout=io.StringIO()\nprint(7)", ""),
    ("stdout None", "import sys\nprint(1)\nsys.stdout=None\nprint(2)", ""),
    ("stdout closed", "import sys\nprint(1)\nsys.stdout.close()", ""),
    ("contextlib exitstack", "import contextlib\nst=contextlib.ExitStack()\nst.callback(print,'never')\nprint(1)", ""),
    (
        "generator finally",
        "def g():\n    try:\n        yield 1\n    finally:\n        print('fin')\nfor x in g():\n    break\nprint('end')",
        "",
    ),
    ("atexit output and exit", "import atexit,sys\natexit.register(lambda: print('bye'))\nprint(1)\nsys.exit(0)", ""),
    (
        "global buffer flush in del",
        "import sys\nclass B:\n    def __init__(s): s.p=[]\n    def w(s,x): s.p.append(x)\n    def __del__(s): sys.stdout.write(''.join(s.p))\nb=B()\nb.w('6')\nb.w('7')",
        "",
    ),
    ("tempfile", "import tempfile\nwith tempfile.TemporaryDirectory() as d: print(len(d)>0)", ""),
    ("import own module", "open('helper_x.py','w').write('v=5')\nimport helper_x\nprint(helper_x.v)", ""),
    (
        "traceback line",
        "import traceback\ndef g(): raise ValueError('x')\ntry: g()\nexcept ValueError: print(traceback.format_exc().count('raise ValueError'))",
        "",
    ),
    ("getsource", "import inspect\ndef g():\n    return 1\nprint(inspect.getsource(g))", ""),
    (
        "names",
        "import sys\nprint(sys.stdin.name,sys.stdout.name,sys.stderr.name,sys.stdin.encoding,sys.stdout.line_buffering,sys.stdin.fileno())",
        "",
    ),
    ("recursion 990", "def d(n): return 0 if n==0 else 1+d(n-1)\nprint(d(990))", ""),
    ("recursion too deep", "def d(n): return d(n+1)\ntry: d(0)\nexcept RecursionError: print('deep')", ""),
    ("name main", "print(__name__, __file__.split('/')[-1])", ""),
    ("stdin isatty", "import sys\nprint(sys.stdin.isatty(),sys.stdout.isatty())", ""),
    (
        "thread at end",
        "import threading\ndef w():\n    print('t')\nt=threading.Thread(target=w);t.start()\nprint('m') if not t.join() else 0",
        "",
    ),
    (
        "threads print after del",
        "import threading,time\nclass A:\n    def __del__(s): print('del')\na=A()\nthreading.Thread(target=lambda:(time.sleep(.05),print('thr'))).start()",
        "",
    ),
    (
        "tell and buffer",
        "import sys\nsys.stdout.buffer.write(b'a');sys.stdout.write('b');sys.stdout.flush();sys.stdout.buffer.flush()",
        "",
    ),
    ("print after os.write", "import os\nprint('a')\nos.write(1,b'b\\n')", ""),
    ("exception in del", "class A:\n    def __del__(s): 1/0\na=A()\nprint(1)", ""),
    (
        "module level del uses global",
        "import math\nN=4\nclass A:\n    def __del__(s): print(N, math.sqrt(N))\na=A()",
        "",
    ),
    (
        "kept main",
        "import sys\nsys.keep=__import__('__main__')\nclass A:\n    def __del__(s): print('d')\na=A()\nprint(1)",
        "",
    ),
]

# name in docs/judging.md, program, test or standard input: one process passes these, the judge does not
OTHERWISE = [
    (
        "own class with __eq__",
        "class V:\n    def __init__(s, v): s.v = v\n    def __eq__(s, o): return s.v == o.v\n    def __add__(s, o): return V(s.v + o.v)\ndef f(a):\n    return V(a)\n",
        "assert candidate(1) == candidate(1)\nassert (candidate(1) + candidate(2)).v == 3",
    ),
    (
        "own class with __lt__",
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass V:\n    v: int\ndef f(a):\n    return V(a)\n",
        "assert candidate(1) < candidate(2)",
    ),
    ("constants without data", "def f(a):\n    return ...\n", "assert candidate(1) is ..."),
    (
        "names of parameters",
        "def f(a):\n    return a\n",
        "import inspect\nassert 'a' in inspect.signature(f).parameters",
    ),
    (
        "input patched by the test",
        "def f():\n    return input()\n",
        "import builtins\nbuiltins.input = lambda *a: 'hi'\nassert candidate() == 'hi'",
    ),
    (
        "StopIteration from next",
        "def f(x):\n    return next(iter(x))\n",
        "try:\n    candidate([])\n    assert 0\nexcept StopIteration:\n    pass",
    ),
    (
        "exception cause",
        "def f(x):\n    try:\n        {}[1]\n    except KeyError as e:\n        raise ValueError from e\n",
        "try:\n    candidate(1)\nexcept ValueError as e:\n    assert e.__cause__",
    ),
    (
        "print captured",
        "def f(x):\n    print(x)\n",
        "import io, contextlib\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    candidate(1)\nassert b.getvalue()",
    ),
    (
        "kept argument",
        "K = []\ndef f(x):\n    K.append(x)\n    return K[0]\n",
        "a = [1]\ncandidate(a)\na.append(2)\nassert candidate(0) == [1, 2]",
    ),
]

ONE_PROCESS = """
import sys
for number, (program, test) in enumerate(CASES):
    try:
        scope = {"__name__": "program"}
        exec(program, scope)
        exec(test, {"candidate": scope["f"], "f": scope["f"], "__name__": "__main__"})
    except BaseException as error:
        print(number, repr(error))
"""


def failures_in_one_process(cases):
    code = ONE_PROCESS.replace("CASES", repr([(program, test) for _, program, test in cases]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.split()[0].isdecimal() and len(line.split()) > 1]


def check_task(test):
    return Task("c", "b", "test", "", "check", Prompt("p"), "f", hidden_tests=(Test(code=test),), names=("f",))


def test_checks():
    assert failures_in_one_process(CHECKS) == []
    verdicts = judge_programs([(program, check_task(test)) for _, program, test in CHECKS], workers=2)
    wrong = [f"{case[0]}: {verdict}" for case, verdict in zip(CHECKS, verdicts) if not verdict.passed]
    assert not wrong, "\n".join(wrong)


def test_scripts(tmp_path):
    items, expected = [], []
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    for _, program, given in SCRIPTS:
        (tmp_path / "program.py").write_text(program)
        command = [sys.executable, "program.py"]
        done = subprocess.run(command, input=given.encode(), capture_output=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, (program, done.stderr)
        expected.append(done.stdout.decode())
        items.append(
            (program, Task("s", "b", "test", "", "stdin", Prompt("p"), hidden_tests=(Test(expected[-1], stdin=given),)))
        )
    wrong = [
        f"{case[0]}: {verdict}"
        for case, verdict in zip(SCRIPTS, judge_programs(items, workers=2))
        if not verdict.passed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name, program, test", OTHERWISE, ids=[case[0] for case in OTHERWISE])
def test_what_stays_different_stands_in_the_docs(name, program, test):
    assert failures_in_one_process([(name, program, test)]) == []
    (verdict,) = judge_programs([(program, check_task(test))], workers=1)
    assert not verdict.passed, "it is no longer different: take it out of the table"
    assert f"| {name} |" in (ROOT / "docs/judging.md").read_text()


def test_a_script_gets_more_input_than_it_may_write():
    text = "1 " * 5_000_000
    task = Task("s", "b", "test", "", "stdin", Prompt("p"), hidden_tests=(Test("10000000", stdin=text),))
    (verdict,) = judge_programs([("import sys\nprint(len(sys.stdin.read()))", task)], workers=1)
    assert verdict.passed, verdict
