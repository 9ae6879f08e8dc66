import { lanSuite } from '../kernel/cni/lan'

lanSuite('ipvlan')
